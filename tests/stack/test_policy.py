"""PolicyLocation on a deployed stack that enforces the policies of roles: the routes and commands of the policy, with a
document in S3 and in Parameter Store that is changed, invalid, missing and forbidden.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.sources import SourceUrls
from local.stack import LocalStack, StackState
from tests.stack.conftest import allow_batches, change_parameters, open_client
from tests.template.transformed import ROOT
from tests.upstream.repositories import MINILM, build_minilm

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BUCKET = "governance"
OBJECT = f"s3://{BUCKET}/rules/policy.json"
PARAMETER = "ssm:/governance/policy"
ALLOWING = {"version": 1, "rules": []}
DENYING = {
    "version": 1,
    "rules": [{"id": "no-minilm", "effect": "deny", "reason": "Use a larger model.", "when": {"name": ["*minilm*"]}}],
    "retention": [{"id": "old", "reason": "Space.", "keep_newest": 2}],
}


@dataclass
class GovernedStack:
    state: StackState

    @property
    def url(self) -> str:
        """MiniStack replaces the API in each update."""
        found = open_client(self.state, "cloudformation").describe_stack_resource(
            StackName=self.state.stack_name, LogicalResourceId="Api"
        )
        api_id = found["StackResourceDetail"]["PhysicalResourceId"]
        return f"{self.state.aws_endpoint_url}/_aws/execute-api/{api_id}/v1"

    def send(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = {"x-api-key": self.state.api_key}
        return requests.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def run(self, *arguments: str, code: int = 0) -> str:
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT / "cli"),
            "MODELHAUL_API_URL": self.url,
            "MODELHAUL_API_KEY": self.state.api_key,
        }
        command = [sys.executable, "-m", "modelhaul_cli", *arguments]
        ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout

    def put_object(self, document: Any) -> str:
        stored = open_client(self.state, "s3").put_object(
            Bucket=BUCKET, Key="rules/policy.json", Body=json.dumps(document).encode()
        )
        return str(stored.get("VersionId") or stored["ETag"].strip('"'))

    def put_parameter(self, document: Any) -> str:
        stored = open_client(self.state, "ssm").put_parameter(
            Name="/governance/policy", Value=json.dumps(document), Type="String", Overwrite=True
        )
        return str(stored["Version"])


@pytest.fixture(scope="module")
def governed() -> Iterator[GovernedStack]:
    local = LocalStack(f"policy-{os.getpid()}")
    try:
        state = local.start("loopback", SourceUrls(), 0, print, enforce_iam=True)
        open_client(state, "s3").create_bucket(Bucket=BUCKET)
        yield GovernedStack(state)
    finally:
        local.stop()


def check_unavailable(governed: GovernedStack, *texts: str) -> None:
    for method, path, body in (("GET", "/policy", None), ("POST", "/policy/tests", {"name": MINILM})):
        response = governed.send(method, path, body)
        assert (response.status_code, response.json()["type"]) == (503, "urn:modelhaul:problem:policy-unavailable")
        assert all(text in response.json()["detail"] for text in texts), response.text


def test_a_stack_has_no_policy_by_default(governed: GovernedStack, tmp_path: Path) -> None:
    answer = governed.send("GET", "/policy")
    assert answer.json() == {"location": None, "version": None, "digest": None, "document": None}
    assert governed.run("policy", "show") == "The stack has no policy. Every import is allowed.\n"
    assert "would be allowed" in governed.run("policy", "test", MINILM)
    document = tmp_path / "policy.json"
    document.write_text(json.dumps(DENYING))
    assert governed.run("policy", "check", str(document)).startswith(
        "Valid: 1 rules for imports, 1 rules for retention"
    )
    denied = governed.run("policy", "test", MINILM, "--file", str(document), code=1)
    assert "would be denied by rule no-minilm.\nReason: Use a larger model.\n" in denied
    document.write_text('{"version": 1, "version": 1}')
    governed.run("policy", "check", str(document), code=2)


@pytest.mark.parametrize("location", [OBJECT, PARAMETER])
def test_the_policy_is_what_the_document_says_now(governed: GovernedStack, location: str) -> None:
    put = governed.put_object if location == OBJECT else governed.put_parameter
    with suppress(Exception):
        open_client(governed.state, "s3").delete_object(Bucket=BUCKET, Key="rules/policy.json")
    change_parameters(governed.state, PolicyLocation=location)
    allow_batches(governed.state)
    check_unavailable(governed, location, "cannot be read")

    first = put(ALLOWING)
    shown = governed.send("GET", "/policy").json()
    assert (shown["location"], shown["version"], shown["document"]) == (location, first, ALLOWING)
    tested = governed.send("POST", "/policy/tests", {"name": MINILM}).json()
    assert tested["decision"] == "allow"
    assert tested["facts"]["size"] == sum(file.size for file in build_minilm().commits[tested["commit"]].files.values())

    second = put(DENYING)
    assert second != first
    assert json.loads(governed.run("policy", "show")) == DENYING
    tested = governed.send("POST", "/policy/tests", {"name": MINILM}).json()
    assert (tested["decision"], tested["rule_id"], tested["policy"]["version"]) == ("deny", "no-minilm", second)

    put({"version": 2})
    check_unavailable(governed, location, "version: Input should be 1")
    put(DENYING)
    assert governed.send("GET", "/policy").json()["document"] == DENYING


def test_another_document_is_forbidden(governed: GovernedStack) -> None:
    """The role of the function reads the document of the parameter only."""
    s3 = open_client(governed.state, "s3")
    s3.put_object(Bucket=BUCKET, Key="rules/policy.json.old", Body=json.dumps(ALLOWING).encode())
    change_parameters(governed.state, PolicyLocation=f"{OBJECT}.old")
    allow_batches(governed.state)
    assert governed.send("GET", "/policy").status_code == 200
    iam = open_client(governed.state, "iam")
    cloudformation = open_client(governed.state, "cloudformation")
    role = cloudformation.describe_stack_resource(
        StackName=governed.state.stack_name, LogicalResourceId="CheckPolicyRole"
    )["StackResourceDetail"]["PhysicalResourceId"]
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    (policy,) = (policy for policy in attached if "ReadPolicyDocument" in policy["PolicyName"])
    iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    check_unavailable(governed, "AccessDenied")
