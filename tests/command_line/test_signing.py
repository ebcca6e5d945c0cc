"""Signed requests for AuthMode=IAM: the signatures are verified by an implementation that is not botocore's."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from botocore.exceptions import UnauthorizedSSOTokenError

from modelhaul_cli import errors
from modelhaul_cli.configuration import find_configuration
from modelhaul_cli.signing import RequestSigner, open_signer
from tests.command_line.conftest import CommandLine, make_archive
from tests.fakes.api_server import (
    MODEL_ID,
    TASK_ID,
    ApiServer,
    Fault,
    create_problem_response,
    create_store_error_response,
)
from tests.sigv4 import Identity, verify

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html: the published test suite.
SUITE = Identity("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
VECTORS = {
    "get-vanilla": ("GET", "/", b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "post-vanilla": ("POST", "/", b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "get-vanilla-query-order-key-case": (
        "GET",
        "/?Param2=value2&Param1=value1",
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-utf8": ("GET", "/ሴ", b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-space": ("GET", "/example space/", b"", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"),
    "get-vanilla-utf8-query": (
        "GET",
        "/?ሴ=bar",
        b"",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    "post-x-www-form-urlencoded": (
        "POST",
        "/",
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}
AWS_URL = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/v1"
IDENTITIES = {
    "user": Identity("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "role": Identity("ASIAIOSFODNN7EXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY", "AQoDYXdzEJr//token=="),
}


def build_suite_headers(body: bytes, signature: str) -> dict[str, str]:
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    if body:
        headers["content-type"] = "application/x-www-form-urlencoded"
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    names = ";".join(sorted(headers))
    text = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": text}


@pytest.mark.parametrize("name", VECTORS)
def test_verifier_accepts_the_published_signatures_and_no_others(name: str) -> None:
    method, target, body, signature = VECTORS[name]

    def check(method: str, target: str, body: bytes, signature: str, now: datetime = SUITE_TIME) -> str | None:
        headers = build_suite_headers(body, signature)
        return verify(method, target, headers, body, SUITE, region="us-east-1", service="service", now=now)

    assert check(method, target, body, signature) is None
    assert check("DELETE", target, body, signature) == "signature"
    assert check(method, f"{target}x", body, signature) == "signature"
    assert check(method, target, body or b"x", signature[::-1]) == "signature"
    assert check(method, target, body, signature, datetime.now(UTC)) == "signature expired"


@pytest.fixture(params=IDENTITIES)
def identity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Identity:
    """The only AWS credentials of the environment."""
    identity = IDENTITIES[request.param]
    clear_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret)
    if identity.token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", identity.token)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return identity


def clear_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def signed(
    api: ApiServer, command_line: CommandLine, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line for an API that accepts only requests which `identity` has signed."""
    monkeypatch.delenv("MODELHAUL_API_KEY")
    api.identity = identity
    return command_line


def test_every_kind_of_request_is_signed(api: ApiServer, signed: CommandLine, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "a b/ä+%25.json": b"[]"}
    model = api.add_model(files)
    small = tmp_path / "small models.zip"
    small.write_bytes(make_archive(1000))
    for command in (
        ("hf", "bert-base-uncased", "--ignore", "*.bin"),
        ("github", "OWNER/REPO@feature/x", "--no-wait"),
        ("zip", small, "--name", "team/my model+ü"),
        ("tasks", "--status", "done"),
        ("ls", "--name", "bert base+ü&/=%~", "--source", "huggingface"),
        ("show", MODEL_ID),
        ("get", MODEL_ID, "--to", tmp_path / "files"),
        ("keys", "create", "laptop"),
        ("keys", "ls"),
        ("keys", "rm", "0000000000000001"),
        ("rm", MODEL_ID, "--yes"),
    ):
        outcome = signed.run(*command)
        assert outcome.code == 0, outcome.err
    assert (tmp_path / "files" / "a b" / "ä+%25.json").read_bytes() == b"[]"
    api.tasks[TASK_ID] = [{**api.tasks[TASK_ID][0], "task_status": "PENDING", "stage": "PLANNING"}]
    assert signed.run("cancel", TASK_ID).code == 0
    (listed,) = [r for r in api.find("GET", "/models$") if "source" in r.query]
    assert listed.query["name"] == "bert base+ü&/=%~"
    assert model["model_id"] == MODEL_ID
    assert [r for r in api.requests if "x-api-key" in r.headers] == []


def test_uploads_to_presigned_urls_are_not_signed_again(api: ApiServer, signed: CommandLine, tmp_path: Path) -> None:
    api.max_put = 5_000_000
    path = tmp_path / "models.zip"
    path.write_bytes(make_archive(5_600_000))
    outcome = signed.run("zip", path)
    assert outcome.code == 0, outcome.err
    assert api.archives == [path.read_bytes()]
    sent = api.find("PUT", "/store/") + api.find("POST", "/store/")
    assert len(sent) == 7
    assert [r for r in sent if "authorization" in r.headers or "x-amz-date" in r.headers] == []


@pytest.mark.parametrize("kind", ["response", "cut", "lost"])
def test_each_attempt_is_signed(api: ApiServer, signed: CommandLine, kind: str) -> None:
    api.faults = [Fault("POST", "huggingface", kind, times=2)]  # type: ignore[arg-type]
    assert signed.run("hf", "bert-base-uncased", "--no-wait").code == 0
    assert api.imports == 1


def test_another_signature_is_rejected(
    api: ApiServer, signed: CommandLine, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{identity.secret}x")
    outcome = signed.run("ls")
    assert outcome.code == 5
    assert "Check the clock of this computer" in outcome.err
    assert identity.secret not in outcome.err


def test_key_is_sent_instead_of_a_signature(
    api: ApiServer, command_line: CommandLine, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command_line.run("ls").code == 0
    assert "authorization" not in api.requests[-1].headers
    api.identity = identity
    assert command_line.run("ls").code == 5
    monkeypatch.setenv("MODELHAUL_AUTH", "iam")
    assert command_line.run("ls").code == 0
    assert "x-api-key" not in api.requests[-1].headers


def test_api_that_wants_a_key_says_what_to_set(
    api: ApiServer, command_line: CommandLine, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELHAUL_API_KEY")
    for response in (create_problem_response(403, "invalid-api-key", "Missing or invalid API key"), None):
        api.faults = [Fault("GET", "models", response=response)] if response else []
        outcome = command_line.run("ls")
        assert outcome.code == 5
        assert "set MODELHAUL_API_KEY" in outcome.err


def test_signed_request_for_an_unknown_route_is_not_found(api: ApiServer, signed: CommandLine, tmp_path: Path) -> None:
    missing = create_problem_response(403, "not-signed", "Unsigned request, or route not found", "Sign the request.")
    api.faults = [Fault("GET", "keys", response=missing), Fault("GET", "models", response=missing)]
    outcome = signed.run("keys", "ls")
    assert (outcome.code, "HubAccess=KEYS" in outcome.err) == (2, True)
    outcome = signed.run("ls")
    assert outcome.code == 3
    assert "has no route GET" in outcome.err
    assert "the same version" in outcome.err
    # An API of an earlier version signs no URLs again.
    api.max_put = 5_000_000
    path = tmp_path / "models.zip"
    path.write_bytes(make_archive(5_600_000))
    expired = create_store_error_response(403, "AccessDenied")
    api.faults = [
        Fault("PUT", "", response=expired, query={"partNumber": "3"}),
        Fault("POST", "/urls$", response=missing),
    ]
    outcome = signed.run("zip", path, "--parallel", "1")
    assert outcome.code == 6
    assert "Run the same command again to start a new upload." in outcome.err


@pytest.mark.parametrize(
    ("kind", "text"), [("access-denied", "get-caller-identity"), ("expired-credentials", "aws sso login")]
)
def test_rejected_caller_is_told_what_to_do(api: ApiServer, signed: CommandLine, kind: str, text: str) -> None:
    api.faults = [Fault("GET", "models", response=create_problem_response(403, kind, "Rejected", "Rejected."))]
    outcome = signed.run("ls")
    assert outcome.code == 5
    assert text in outcome.err


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (AWS_URL, "eu-central-1"),
        ("https://a1-vpce-0a1b.execute-api.cn-north-1.amazonaws.com.cn/v1", "cn-north-1"),
        ("https://models.example.com/v1", "eu-west-1"),
        ("https://execute-api.example.com/v1", "eu-west-1"),
    ],
)
def test_region_is_that_of_the_api(identity: Identity, url: str, region: str) -> None:
    signer = open_signer(url, {"AWS_REGION": "eu-west-1"}, "")
    request = requests.Request("GET", f"{url}/models?name=a%20b&limit=2", auth=signer).prepare()
    headers = {name.lower(): value for name, value in request.headers.items()} | {"host": urlsplit(url).netloc}
    now = datetime.now(UTC)
    target = "/v1/models?name=a%20b&limit=2"
    assert verify("GET", target, headers, b"", identity, region=region, service="execute-api", now=now) is None


def test_wrong_region_of_a_custom_domain_is_a_cause(signed: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    outcome = signed.run("ls")
    assert (outcome.code, "AWS_REGION must be the Region of the stack" in outcome.err) == (5, True)


def test_profile_and_its_region_are_used(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clear_credentials(monkeypatch, tmp_path)
    identity = IDENTITIES["user"]
    (tmp_path / "config").write_text("[profile team-a]\nregion = eu-west-1\n")
    (tmp_path / "credentials").write_text(
        f"[team-a]\naws_access_key_id = {identity.access_key}\naws_secret_access_key = {identity.secret}\n"
    )
    monkeypatch.delenv("MODELHAUL_API_KEY")
    monkeypatch.setenv("AWS_PROFILE", "team-a")
    api.identity = identity
    assert command_line.run("ls").code == 0
    monkeypatch.setenv("AWS_PROFILE", "team-b")
    outcome = command_line.run("ls")
    assert (outcome.code, "team-b" in outcome.err) == (2, True)


def test_missing_credentials_and_region_are_reported(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clear_credentials(monkeypatch, tmp_path)
    monkeypatch.delenv("MODELHAUL_API_KEY")
    outcome = command_line.run("ls")
    assert outcome.code == 2
    assert "Neither an API key nor AWS credentials were found" in outcome.err
    for way in ("MODELHAUL_API_KEY", "AWS_PROFILE", "make run", "get-api-key"):
        assert way in outcome.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    outcome = command_line.run("ls")
    assert (outcome.code, "Set AWS_REGION" in outcome.err) == (2, True)
    assert api.requests == []


def test_invalid_output_of_a_credential_process_is_reported(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clear_credentials(monkeypatch, tmp_path)
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\ncredential_process = /bin/echo none\n")
    monkeypatch.delenv("MODELHAUL_API_KEY")
    outcome = command_line.run("ls")
    assert outcome.code == 2
    assert "Cannot use the AWS credentials" in outcome.err
    assert api.requests == []


def test_credentials_that_cannot_be_renewed_are_reported() -> None:
    class Expired:
        def get_frozen_credentials(self) -> None:
            raise UnauthorizedSSOTokenError

    with pytest.raises(errors.AccessError) as raised:
        requests.Request("GET", AWS_URL, auth=RequestSigner(Expired(), "eu-west-1")).prepare()  # type: ignore[arg-type]
    assert "aws sso login" in raised.value.remedy


def test_authentication_can_be_chosen(tmp_path: Path) -> None:
    url = {"MODELHAUL_API_URL": AWS_URL}
    both = {**url, "MODELHAUL_API_KEY": "k"}
    assert find_configuration(None, None, url, tmp_path).key == ""
    assert find_configuration(None, None, both, tmp_path).key == "k"
    assert find_configuration(None, None, {**both, "MODELHAUL_AUTH": "iam"}, tmp_path).key == ""
    assert find_configuration(None, None, {**both, "MODELHAUL_AUTH": "key"}, tmp_path).key == "k"
    with pytest.raises(errors.UsageError, match="API key is not configured"):
        find_configuration(None, None, {**url, "MODELHAUL_AUTH": "key"}, tmp_path)
    with pytest.raises(errors.UsageError, match="Invalid MODELHAUL_AUTH"):
        find_configuration(None, None, {**url, "MODELHAUL_AUTH": "none"}, tmp_path)
    (tmp_path / "key").write_text("k")
    with pytest.raises(errors.UsageError, match="Contradictory"):
        find_configuration(None, tmp_path / "key", {**url, "MODELHAUL_AUTH": "iam"}, tmp_path)


def test_command_line_works_without_botocore(tmp_path: Path) -> None:
    """Keys need no botocore, and without it a signature is refused with words."""
    script = (
        "import sys; sys.modules['botocore'] = None\n"
        "from modelhaul_cli import application\n"
        "from modelhaul_cli.signing import open_signer\n"
        "try: open_signer('https://x/v1', {}, '')\n"
        "except Exception as error: print(error.remedy)\n"
        "print([n for n in sys.modules if n.startswith(('botocore.', 'boto3'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.splitlines() == [
        "Set an API key, or install modelhaul again, with `.[iam]` instead of `.` (docs/command-line.md).",
        "[]",
    ]
