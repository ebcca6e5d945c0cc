"""What a change of parameters alone makes of a stack.

AuthMode=IAM: signatures instead of keys, and what a policy allows. The secrets of both sources' tokens: what is gated
or private is imported, and who may read them. Signing=KMS: with a key that the stack creates.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deployment.verify.checks import CHECKS
from deployment.verify.registry import Verification
from deployment.verify.results import Outcome
from deployment.verify.runner import measure_check
from deployment.verify.target import open_local_target
from local.sources import SourceUrls
from local.stack import CLIENT_CONFIG, CREDENTIALS, LocalStack, StackState
from tests.archives.zipping import zip_files, zip_models
from tests.documented_dashboard import VALIDATOR as DASHBOARD
from tests.model_signing import is_accepted, needs_model_signing
from tests.stack.conftest import allow_batches, change_parameters, open_client, wait_until
from tests.stack.test_permissions import (
    Target,
    assume_role,
    is_allowed,
    list_functions,
    list_physical_ids,
    open_clients,
)
from tests.template.transformed import ROOT as REPOSITORY
from tests.template.transformed import Template, apply_parameters, read_template, transform_template
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import GATED, GITHUB_PRIVATE, MINILM, PRIVATE, READER_TOKEN, SHARDED, SMALL
from tests.weights import wrap_weights

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ORIGIN = "https://models.example.com"
ALARM_TOPIC = "on-call"
READ_ONLY = "/v1/GET/*"
TOKENS = {
    "HuggingFaceTokenSecret": {
        "SubmitHuggingfaceFunction",
        "ManageFollowsFunction",
        "CheckFollowsFunction",
        "CheckPolicyFunction",
        "PlanImportFunction",
        "TransferFilesFunction",
    },
    "GitHubTokenSecret": {
        "SubmitGithubFunction",
        "ManageFollowsFunction",
        "CheckFollowsFunction",
        "CheckPolicyFunction",
        "PlanImportFunction",
        "TransferFilesFunction",
    },
}
"""Parameter to the functions that speak to the source."""
ROOT = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])


@dataclass
class IamStack:
    """`name` is that of the local stack, `secrets` are the tokens' ARNs by parameter, `unsigned` is a model that was
    published before the change.
    """

    name: str
    state: StackState
    secrets: dict[str, str]
    unsigned: str

    @property
    def api_id(self) -> str:
        """MiniStack replaces the API in each update."""
        cloudformation = open_client(self.state, "cloudformation")
        found = cloudformation.describe_stack_resource(StackName=self.state.stack_name, LogicalResourceId="Api")
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    @property
    def url(self) -> str:
        return f"{self.state.aws_endpoint_url}/_aws/execute-api/{self.api_id}/v1"

    def send(
        self, caller: Credentials | None, method: str, path: str, body: str | None = None, **headers: str
    ) -> requests.Response:
        url = self.url + path
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        if caller is not None:
            SigV4Auth(caller, "execute-api", self.state.region).add_auth(request)
        # S3, on the same port, would reject the signature in a redirected request.
        options: dict[str, Any] = {"timeout": 30, "allow_redirects": False}
        return requests.request(method, url, data=body, headers=dict(request.headers), **options)

    def import_model(self, route: str, body: dict[str, str]) -> dict[str, Any]:
        """The task as it ended."""
        answer = self.send(ROOT, "POST", f"/upload/{route}", json.dumps(body))
        assert answer.status_code == 201, answer.text
        path = answer.headers["Location"].removeprefix("/v1")
        seen: list[dict[str, Any]] = []

        def has_ended() -> bool:
            seen[:] = [self.send(ROOT, "GET", path).json()]
            return bool(seen[0]["task_status"] != "PENDING")

        wait_until(has_ended, seen)
        return seen[0]

    def create_caller(self, name: str, resource: str | None) -> Credentials:
        """A user of the account, who may call what `resource` names of the API."""
        iam = open_client(self.state, "iam")
        iam.create_user(UserName=name)
        if resource is not None:
            arn = f"arn:aws:execute-api:{self.state.region}:000000000000:{self.api_id}{resource}"
            statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": arn}
            document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName=name, PolicyName="call", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def import_sample(state: StackState) -> str:
    """The ID of a model of an archive."""
    http = requests.Session()
    http.headers["x-api-key"] = state.api_key
    files = {"file": ("models.zip", zip_models(""), "application/zip")}
    url = f"{state.api_url}/upload/local"
    answer = http.post(url, params={"model_name": "parameters/unsigned"}, files=files, timeout=60)
    assert answer.status_code == 201, answer.text
    model_id = answer.headers["Location"].rpartition("/")[2]
    wait_until(lambda: http.get(f"{url}/{model_id}", timeout=30).json()["status"] == "READY")
    return model_id


@pytest.fixture(scope="module")
def iam_stack() -> Iterator[IamStack]:
    name = f"callers-{os.getpid()}"
    local = LocalStack(name)
    try:
        state = local.start("loopback", SourceUrls(), 0, print, enforce_iam=True)
        secrets = open_client(state, "secretsmanager")
        # With the line's end that a secret made from a file has.
        tokens = {name: secrets.create_secret(Name=name, SecretString=f"{READER_TOKEN}\n")["ARN"] for name in TOKENS}
        topic = open_client(state, "sns").create_topic(Name=ALARM_TOPIC)["TopicArn"]
        allow_batches(state)
        unsigned = import_sample(state)
        others = {
            "Signing": "KMS",
            "AuthMode": "IAM",
            "CorsAllowOrigin": ORIGIN,
            "NotificationEmail": "a@example.com",
            "AlarmTopicArn": topic,
        }
        change_parameters(state, **others, **tokens)
        allow_batches(state)
        yield IamStack(name, state, tokens, unsigned)
    finally:
        local.stop()


def test_alarms_notify_both_destinations(iam_stack: IamStack) -> None:
    state = iam_stack.state
    cloudwatch = open_client(state, "cloudwatch")
    alarms = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    names = ("api-errors", "dead-letters", "late-events", "lost-arrivals", "sweep-recoveries", "unpublished-ends")
    assert set(alarms) == {f"{state.stack_name}-{name}" for name in names}
    for alarm in alarms.values():
        assert alarm["TreatMissingData"] == "notBreaching"
        email, topic = alarm["AlarmActions"]
        assert alarm["OKActions"] == [email, topic]
        assert "NotificationsTopic" in email
        assert topic.endswith(f":{ALARM_TOPIC}")
    body = json.loads(
        cloudwatch.get_dashboard(DashboardName=f"{state.stack_name}-{cloudwatch.meta.region_name}")["DashboardBody"]
    )
    DASHBOARD.validate(body)
    (widget,) = (widget for widget in body["widgets"] if widget["type"] == "alarm")
    assert {alarm["AlarmArn"] for alarm in alarms.values()} <= set(widget["properties"]["alarms"])


@pytest.fixture(scope="module")
def signed(iam_stack: IamStack) -> dict[str, Any]:
    """A model's record, which was signed when it was published."""
    task = iam_stack.import_model("huggingface", {"model_tag": MINILM, "revision": "next"})
    assert task["task_status"] == "DONE", task
    record: dict[str, Any] = iam_stack.send(ROOT, "GET", f"/models/{task['models'][0]['model_id']}").json()
    return record


def download(iam_stack: IamStack, record: dict[str, Any], folder: Path) -> None:
    for file in record["manifest"]["files"]:
        found = iam_stack.send(ROOT, "GET", f"/models/{record['model_id']}/files/{quote(file['path'])}")
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(requests.get(found.headers["Location"], timeout=30).content)


@needs_model_signing
def test_published_model_is_accepted_by_the_reference_verifier(
    iam_stack: IamStack, signed: dict[str, Any], tmp_path: Path
) -> None:
    kms = open_client(iam_stack.state, "kms")
    key = kms.get_public_key(KeyId=signed["signature"]["key_arn"])
    assert (key["KeySpec"], key["KeyUsage"]) == ("ECC_NIST_P256", "SIGN_VERIFY")
    answer = iam_stack.send(ROOT, "GET", f"/models/{signed['model_id']}/signature")
    assert answer.status_code == 200, answer.text
    folder, signature, public_key = tmp_path / "model", tmp_path / "model.sig", tmp_path / "key.pem"
    signature.write_bytes(answer.content)
    # The key that KMS has, not the one that the API shows.
    public_key.write_bytes(
        load_der_public_key(key["PublicKey"]).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert public_key.read_text() == signed["signature"]["public_key"]
    download(iam_stack, signed, folder)
    assert is_accepted(folder, signature, public_key)
    (folder / "config.json").write_bytes(b"{}")
    assert not is_accepted(folder, signature, public_key)


def test_model_published_before_is_signed_on_request(iam_stack: IamStack) -> None:
    path = f"/models/{iam_stack.unsigned}/signature"
    missing = iam_stack.send(ROOT, "GET", path)
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:modelhaul:problem:signature-not-found")
    first, second = (iam_stack.send(ROOT, "POST", path) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200), first.text
    assert first.json() == second.json()
    assert iam_stack.send(ROOT, "GET", path).status_code == 200
    record = iam_stack.send(ROOT, "GET", f"/models/{iam_stack.unsigned}").json()
    assert record["signature"]["signed_at"] == first.json()["signed_at"]


def test_verification_checks_the_signature(iam_stack: IamStack) -> None:
    # MiniStack has replaced the API, but not the URL in its state.
    target = replace(open_local_target(iam_stack.name, None, None), api_url=iam_stack.url)
    verification = Verification(target, datetime.now(UTC), os.urandom(4).hex())
    results = [measure_check(CHECKS[name], verification) for name in ("signature", "manifest", "delete-model")]
    assert [result.outcome for result in results] == [Outcome.PASS] * 3, results
    assert verification.imports.delete_all() == []


def test_disabled_key_fails_the_import(iam_stack: IamStack, signed: dict[str, Any]) -> None:
    kms, key = open_client(iam_stack.state, "kms"), signed["signature"]["key_arn"]
    kms.disable_key(KeyId=key)
    try:
        task = iam_stack.import_model("huggingface", {"model_tag": SHARDED})
    finally:
        kms.enable_key(KeyId=key)
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", "signing-refused"), task
    assert "DisabledException" in task["error_msg"]
    assert "signing key" in task["error"]["remedy"]


def test_bill_of_materials_has_the_card_of_the_hub(iam_stack: IamStack, signed: dict[str, Any]) -> None:
    answer = iam_stack.send(ROOT, "GET", f"/models/{signed['model_id']}/bom")
    assert answer.status_code == 200, answer.text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(answer.text) is None
    component = answer.json()["metadata"]["component"]
    assert component["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert signed["card"]["licenses"] == ["apache-2.0"]
    assert len(answer.json()["components"]) == signed["files"]


def test_key_is_not_enough(iam_stack: IamStack) -> None:
    answer = iam_stack.send(None, "GET", "/upload/tasks", **{"x-api-key": iam_stack.state.api_key})
    assert answer.status_code == 403


def test_signature_needs_no_key_and_answers_pages_of_the_origin(iam_stack: IamStack) -> None:
    answer = iam_stack.send(ROOT, "GET", "/upload/tasks", Origin=ORIGIN)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Expose-Headers"] == "Link, Location, Retry-After"


def test_problems_are_for_pages_of_the_origin_too(iam_stack: IamStack) -> None:
    answer = iam_stack.send(ROOT, "POST", "/upload/huggingface", "no JSON")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


def ask_first(state: StackState, bucket: str, origin: str, method: str, headers: str) -> requests.Response:
    """The preflight that a browser sends before a page's request to a bucket."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return requests.options(f"{state.aws_endpoint_url}/{bucket}/key", headers=asked, timeout=30)


def test_pages_of_the_origin_may_use_the_addresses_that_they_are_given(iam_stack: IamStack) -> None:
    state = iam_stack.state
    for bucket, origin, method, headers in (
        (state.models_bucket, ORIGIN, "GET", "range"),
        # After the redirect to a file.
        (state.models_bucket, "null", "GET", "x-api-key"),
        (state.incoming_bucket, ORIGIN, "PUT", "content-type"),
    ):
        answer = ask_first(state, bucket, origin, method, headers)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
    other = "https://elsewhere.example.com"
    for bucket, origin, method in (
        (state.models_bucket, other, "GET"),
        (state.models_bucket, ORIGIN, "PUT"),
        (state.incoming_bucket, other, "PUT"),
        (state.incoming_bucket, ORIGIN, "GET"),
    ):
        refused = ask_first(state, bucket, origin, method, "range")
        assert (refused.status_code, refused.headers.get("Access-Control-Allow-Origin")) == (403, None)


def test_caller_may_do_what_a_policy_allows(iam_stack: IamStack) -> None:
    stranger = iam_stack.create_caller("stranger", None)
    reader = iam_stack.create_caller("reader", READ_ONLY)
    assert iam_stack.send(stranger, "GET", "/upload/tasks").status_code == 403
    assert iam_stack.send(reader, "GET", "/upload/tasks").status_code == 200
    assert iam_stack.send(reader, "POST", "/upload/huggingface", "{}").status_code == 403


def read_policies() -> dict[str, dict[str, Any]]:
    """The policies of docs/access.md by the name of their role."""
    page = (REPOSITORY / "docs" / "access.md").read_text(encoding="utf-8")
    found = re.findall(r"^(?:A|An) \*\*(\w+)\*\* .*?```json\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    return {name: json.loads(policy) for name, policy in found}


@dataclass
class SignedTerminal:
    """The command line with the credentials of a new IAM user, who has a documented policy."""

    stack: IamStack
    caller: Credentials
    folder: Path

    def run(self, *arguments: str | Path, code: int = 0) -> Any:
        """Return the last JSON document that the command prints."""
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "PYTHONPATH": str(REPOSITORY / "cli"),
            "MODELHAUL_API_URL": self.stack.url,
            "AWS_ACCESS_KEY_ID": self.caller.access_key,
            "AWS_SECRET_ACCESS_KEY": self.caller.secret_key,
            "AWS_REGION": self.stack.state.region,
        }
        command = [sys.executable, "-m", "modelhaul_cli", *map(str, arguments), "--json"]
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        # One document, or one line for each change while an import is followed.
        return json.loads(ended.stdout if ended.stdout.startswith("{\n") else ended.stdout.splitlines()[-1])


def open_terminal(stack: IamStack, policy: str, folder: Path) -> SignedTerminal:
    text = json.dumps(read_policies()[policy])
    for placeholder, value in (("REGION", stack.state.region), ("ACCOUNT", "000000000000"), ("API_ID", stack.api_id)):
        text = text.replace(placeholder, value)
    user = f"documented-{policy}"
    caller = stack.create_caller(user, None)
    open_client(stack.state, "iam").put_user_policy(UserName=user, PolicyName="documented", PolicyDocument=text)
    return SignedTerminal(stack, caller, folder)


def test_command_line_signs_and_documented_policies_separate_callers(iam_stack: IamStack, tmp_path: Path) -> None:
    submitter, reader, administrator = (
        open_terminal(iam_stack, policy, tmp_path) for policy in ("submitter", "reader", "administrator")
    )
    user = "arn:aws:iam::000000000000:user/documented"
    task = submitter.run("hf", SMALL)
    assert (task["task_status"], task["submitted_by"]) == ("DONE", f"{user}-submitter")
    (model,) = task["models"]

    archive = tmp_path / "signed models.zip"
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(os.urandom(5_000_000))}
    archive.write_bytes(zip_files({f"signed/{name}": body for name, body in files.items()}, zipfile.ZIP_STORED))
    uploaded = submitter.run("zip", archive, "--name", "team/signed")
    assert (uploaded["task_status"], uploaded["submitted_by"]) == ("DONE", f"{user}-submitter")

    listed = reader.run("ls", "--name", SMALL)["models"]
    assert [(m["model_id"], m["submitted_by"]) for m in listed] == [(model["model_id"], f"{user}-submitter")]
    assert reader.run("status", task["id"])["id"] == task["id"]
    reader.run("get", model["model_id"], "--to", tmp_path / "files", "--verify")
    for document in ("signature", "bom"):
        assert iam_stack.send(reader.caller, "GET", f"/models/{model['model_id']}/{document}").status_code == 200
    assert submitter.run("sign", iam_stack.unsigned)["model_id"] == iam_stack.unsigned
    for command in (
        ("hf", SMALL),
        ("rm", model["model_id"], "--yes"),
        ("keys", "ls"),
        ("cancel", task["id"]),
        ("sign", iam_stack.unsigned),
    ):
        assert reader.run(*command, code=5)["error"]["exit_code"] == 5
    for command in (("rm", model["model_id"], "--yes"), ("keys", "create", "x")):
        submitter.run(*command, code=5)

    key = administrator.run("keys", "create", "signed")
    (found,) = [k for k in administrator.run("keys", "ls")["keys"] if k["key_id"] == key["key_id"]]
    assert found["created_by"] == f"{user}-administrator"
    administrator.run("rm", model["model_id"], "--yes")
    assert {"model deleted": f"{user}-administrator"}.items() <= read_deletions(iam_stack, model["model_id"]).items()


def read_deletions(stack: IamStack, model_id: str) -> dict[str, str]:
    """Who deleted the model, by the message of the log line."""
    group = f"/aws/lambda/{stack.state.stack_name}-delete-model"
    found: dict[str, str] = {}

    def is_logged() -> bool:
        events = open_client(stack.state, "logs").filter_log_events(logGroupName=group)["events"]
        lines = [json.loads(e["message"]) for e in events if e["message"].startswith("{")]
        found.update({line["message"]: line["deleted_by"] for line in lines if line.get("model_id") == model_id})
        return bool(found)

    wait_until(is_logged, found)
    return found


def test_altered_request_is_refused(iam_stack: IamStack) -> None:
    reader = iam_stack.create_caller("another", READ_ONLY)
    forged = Credentials(reader.access_key, "not the secret")
    assert iam_stack.send(forged, "GET", "/upload/tasks").status_code == 403


def test_address_is_subscribed_to_ends(iam_stack: IamStack) -> None:
    topics = open_client(iam_stack.state, "sns").list_topics()["Topics"]
    (topic,) = (topic for topic in topics if not topic["TopicArn"].endswith(f":{ALARM_TOPIC}"))
    subscriptions = open_client(iam_stack.state, "sns").list_subscriptions_by_topic(TopicArn=topic["TopicArn"])
    assert [(s["Protocol"], s["Endpoint"]) for s in subscriptions["Subscriptions"]] == [("email", "a@example.com")]
    rules = open_client(iam_stack.state, "events").list_rule_names_by_target(TargetArn=topic["TopicArn"])
    assert len(rules["RuleNames"]) == 2


@pytest.mark.parametrize("name", [GATED, PRIVATE])
def test_a_model_that_needs_the_token_is_imported_from_the_hub(iam_stack: IamStack, name: str) -> None:
    hub = RemoteUpstream(iam_stack.state.hub_endpoint)
    hub.clear_requests()
    task = iam_stack.import_model("huggingface", {"model_tag": name})
    assert task["task_status"] == "DONE", task
    sent = {record.origin: record.authorized for record in hub.requests}
    assert sent == {"api": True, "resolve": True, "cdn": False}


def test_a_private_repository_is_imported_from_github(iam_stack: IamStack) -> None:
    if not iam_stack.state.sample_repository:
        pytest.skip("the loopback GitHub needs git and git-lfs (`make setup` says why)")
    owner, _, name = GITHUB_PRIVATE.partition("/")
    task = iam_stack.import_model("github", {"owner": owner, "repo_name": name})
    assert task["task_status"] == "DONE", task


def test_a_token_is_read_by_the_functions_that_speak_to_its_source_and_by_no_other(iam_stack: IamStack) -> None:
    endpoint, physical = iam_stack.state.aws_endpoint_url, list_physical_ids(iam_stack.state)
    readers: dict[str, set[str]] = {name: set() for name in TOKENS}
    for function, role in list_functions(read_deployed()).items():
        clients = open_clients(endpoint, assume_role(iam_stack.state, physical[role]))
        for name, arn in iam_stack.secrets.items():
            secret = Target("AWS::SecretsManager::Secret", name, "", arn)
            if is_allowed(clients, ("secretsmanager:GetSecretValue", secret)):
                readers[name].add(function)
    assert readers == TOKENS


def test_key_is_used_by_the_functions_that_sign_and_by_no_other(iam_stack: IamStack, signed: dict[str, Any]) -> None:
    physical, key = list_physical_ids(iam_stack.state), signed["signature"]["key_arn"]
    signers: dict[str, set[str]] = {"GetPublicKey": set(), "Sign": set()}
    for function, role in list_functions(read_deployed()).items():
        client: Callable[..., Any] = assume_role(iam_stack.state, physical[role]).client
        kms = client("kms", endpoint_url=iam_stack.state.aws_endpoint_url, config=CLIENT_CONFIG)
        calls: dict[str, Callable[[], object]] = {
            "GetPublicKey": partial(kms.get_public_key, KeyId=key),
            "Sign": partial(
                kms.sign, KeyId=key, Message=bytes(32), MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256"
            ),
        }
        for name, call in calls.items():
            if (code := find_error(call)) is None:
                signers[name].add(function)
            else:
                assert "AccessDenied" in code
    expected = {"PublishModelsFunction", "SignModelFunction"}
    assert signers == {"GetPublicKey": expected, "Sign": expected}


def find_error(call: Callable[[], object]) -> str | None:
    """Return the error code, None if the call succeeds."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def read_deployed() -> Template:
    return apply_parameters(transform_template(read_template()), LocalMode="true", AuthMode="IAM", Signing="KMS")


def test_the_documentation_is_turned_off_and_on_again(iam_stack: IamStack) -> None:
    assert iam_stack.send(None, "GET", "/docs").status_code == 200
    change_parameters(iam_stack.state, Documentation="off")
    assert "ReadDocsFunction" not in list_physical_ids(iam_stack.state)
    assert {iam_stack.send(None, "GET", path).status_code for path in ("/docs", "/openapi.json")} <= {403, 404}
    assert iam_stack.send(ROOT, "GET", "/models").status_code == 200
    change_parameters(iam_stack.state, Documentation="on")
    assert iam_stack.send(None, "GET", "/openapi.json").status_code == 200
