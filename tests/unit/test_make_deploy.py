"""`make deploy` offers the saved answers again, and a TransferConcurrency for which the account has the quota."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.quota import choose_transfer_concurrency, count_consumers
from deployment.saved import parse_overrides, write_overrides
from tests.http_servers import run_server
from tests.template.rules import list_consumers, list_dead_letter_queues
from tests.template.transformed import apply_parameters, read_template, transform_template

ROOT = Path(__file__).parents[2]
NEW_ACCOUNT = 10
ENOUGH = 1000
SAVED = """
[default.global.parameters]
stack_name = "modelhaul"
region = "eu-north-1"

[default.deploy.parameters]
capabilities = "CAPABILITY_IAM"
parameter_overrides = "Architecture=\\"x86_64\\" NotificationEmail=\\"team@example.com\\" CorsAllowOrigin=\\"\\""

[two.deploy.parameters]
parameter_overrides = "PicklePolicy=\\"off\\""
"""
_SAM = """#!{python}
import json, pathlib, sys
pathlib.Path("arguments.json").write_text(json.dumps(sys.argv[1:]))
sys.exit(3)
"""


_STACK = """<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks>
<member><StackName>modelhaul</StackName><CreationTime>2026-11-28T12:00:00Z</CreationTime><StackStatus>{}</StackStatus>
</member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""
_ERROR = """<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>
<Code>{}</Code><Message>Not possible</Message></Error></ErrorResponse>"""


@dataclass
class Account(ThreadingHTTPServer):
    """AWS Lambda, which only has the settings of an account, and CloudFormation, which has a stack with a status.

    `regions` are those of the signatures of requests to Lambda. `stack_status` is "" if there is no stack, and an error
    code if CloudFormation refuses the request.
    """

    unreserved: int
    stack_status: str = ""
    quota: int = 0
    status: int = 200
    regions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    __hash__ = ThreadingHTTPServer.__hash__


class Handler(BaseHTTPRequestHandler):
    server: Account

    def do_GET(self) -> None:
        assert self.path.rstrip("/") == "/2016-08-19/account-settings"
        self.server.regions.append(self.headers["Authorization"].split("/")[2])
        limit = {
            "ConcurrentExecutions": self.server.quota or self.server.unreserved,
            "UnreservedConcurrentExecutions": self.server.unreserved,
        }
        denied = {"Message": "User is not authorized to perform: lambda:GetAccountSettings"}
        body = json.dumps({"AccountLimit": limit} if self.server.status == 200 else denied).encode()
        self.send_response(self.server.status)
        self.send_header("x-amzn-ErrorType", "AccessDeniedException")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        status = self.server.stack_status
        code = 403 if status == "AccessDenied" else 200 if status else 400
        body = (_STACK if code == 200 else _ERROR).format(status or "ValidationError").encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    with run_server(Account(getattr(request, "param", ENOUGH))) as server:
        yield server


def deploy(folder: Path, account: Account, saved: str = SAVED, **environment: str) -> tuple[list[str], str]:
    """Deploy with a SAM CLI that only records its arguments. Return these and the output."""
    (folder / "samconfig.toml").write_text(saved)
    (folder / "sam").write_text(_SAM.format(python=sys.executable))
    (folder / "sam").chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-m", "deployment", "deploy", "--architecture", "arm64"],
        cwd=folder,
        env={
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{account.server_address[1]}",
            "AWS_ENDPOINT_URL_CLOUDFORMATION": f"http://127.0.0.1:{account.server_address[1]}",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    return json.loads((folder / "arguments.json").read_text()), run.stdout


def list_commands(folder: Path, *options: str) -> list[str]:
    """Return what `make deploy` would run."""
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "--just-print", "--no-print-directory", "deploy", *options]
    # The tests may have been started by make, whose options are not for this one.
    of_make = ("MAKE", "MFLAGS", "GNUMAKEFLAGS", "ARCHITECTURE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(of_make)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("saved", "options", "architecture"),
    [("", [], "arm64"), (SAVED, [], "x86_64"), (SAVED, ["ARCHITECTURE=arm64"], "arm64")],
    ids=["first", "saved", "given"],
)
def test_layers_are_built_for_the_architecture(
    tmp_path: Path, saved: str, options: list[str], architecture: str
) -> None:
    (tmp_path / "samconfig.toml").write_text(saved)
    *_, build, deployment = list_commands(tmp_path, *options)
    assert build.startswith(f"MODELHAUL_ARCHITECTURE={architecture} sam build ")
    assert deployment == f"exec python -m deployment deploy --architecture {architecture}"


@pytest.mark.slow
def test_the_first_time_only_the_architecture_is_given(tmp_path: Path, account: Account) -> None:
    saved = (ROOT / "samconfig.toml").read_text()
    arguments, output = deploy(tmp_path, account, saved)
    assert arguments == ["deploy", "--guided", "--parameter-overrides", 'Architecture="arm64"']
    assert (account.regions, output) == (["us-east-1"], "")


@pytest.mark.slow
def test_saved_answers_are_offered_again(tmp_path: Path, account: Account) -> None:
    (*_, overrides), _ = deploy(tmp_path, account)
    assert overrides == 'Architecture="arm64" NotificationEmail="team@example.com" CorsAllowOrigin=""'
    assert account.regions == ["eu-north-1"]


@pytest.mark.slow
@pytest.mark.parametrize("account", [NEW_ACCOUNT], indirect=True)
def test_a_new_account_is_offered_what_its_quota_allows(tmp_path: Path, account: Account) -> None:
    (*_, overrides), output = deploy(tmp_path, account)
    assert 'TransferConcurrency="2"' in overrides
    assert output.startswith("Lambda may run 10 functions at the same time in eu-north-1. TransferConcurrency=2 leaves")


@pytest.mark.slow
@pytest.mark.parametrize("account", [NEW_ACCOUNT], indirect=True)
def test_a_saved_concurrency_above_the_quota_is_kept_with_a_warning(tmp_path: Path, account: Account) -> None:
    account.quota = 110
    (*_, overrides), output = deploy(tmp_path, account, SAVED.replace("CorsAllowOrigin", "TransferConcurrency=8 Cors"))
    assert 'TransferConcurrency="8"' in overrides
    assert "(quota: 110, of which other functions reserve a part)" in output
    assert "TransferConcurrency=8 allows 26 functions for imports: while imports run, API requests can fail" in output
    assert "TransferConcurrency=2 allows 8." in output


@pytest.mark.slow
def test_the_minimum_of_a_new_account_can_be_raised_later(tmp_path: Path, account: Account) -> None:
    saved = SAVED.replace("CorsAllowOrigin", "TransferConcurrency=2 Cors")
    (*_, overrides), output = deploy(tmp_path, account, saved)
    assert 'TransferConcurrency="2"' in overrides
    assert output.endswith(
        "1000 functions at the same time in eu-north-1, so TransferConcurrency=2 can be raised to 16.\n"
    )
    _, output = deploy(tmp_path, account, saved.replace("=2", "=40"))
    assert output == ""


@pytest.mark.slow
def test_deployment_continues_without_the_permission_to_read_the_quota(tmp_path: Path, account: Account) -> None:
    account.status = 403
    (*_, overrides), output = deploy(tmp_path, account)
    assert "TransferConcurrency" not in overrides
    assert output.startswith("The concurrency quota of AWS Lambda was not checked: An error occurred (AccessDenied")


@pytest.mark.slow
def test_deployment_continues_without_an_aws_profile(tmp_path: Path, account: Account) -> None:
    _, output = deploy(tmp_path, account, AWS_PROFILE="missing")
    assert output.startswith("The concurrency quota of AWS Lambda was not checked: The config profile (missing)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "offered"),
    [
        ("CREATE_COMPLETE", "on"),
        ("UPDATE_ROLLBACK_COMPLETE", "on"),
        ("", None),
        # The SAM CLI deletes such a stack and creates it again.
        ("ROLLBACK_COMPLETE", None),
        ("REVIEW_IN_PROGRESS", None),
    ],
)
def test_only_an_update_is_offered_deletion_protection(
    tmp_path: Path, account: Account, status: str, offered: str | None
) -> None:
    account.stack_status = status
    (*_, overrides), output = deploy(tmp_path, account)
    assert parse_overrides(overrides).get("DeletionProtection") == offered
    assert not output


@pytest.mark.slow
@pytest.mark.parametrize(("status", "offered"), [("", "off"), ("AccessDenied", "on")])
def test_saved_protection_is_not_for_a_new_stack(tmp_path: Path, account: Account, status: str, offered: str) -> None:
    account.stack_status = status
    (*_, overrides), output = deploy(tmp_path, account, SAVED.replace("CorsAllowOrigin", "DeletionProtection=on Cors"))
    assert parse_overrides(overrides)["DeletionProtection"] == offered
    assert ("AccessDenied" in output) is (status == "AccessDenied")


@given(st.dictionaries(st.from_regex("[A-Za-z0-9]+", fullmatch=True), st.from_regex(r"[ -\[\]-~]*", fullmatch=True)))
def test_written_parameters_are_read_again(parameters: dict[str, str]) -> None:
    assert parse_overrides(write_overrides(parameters)) == parameters


@pytest.mark.slow
def test_the_sam_cli_reads_written_parameters() -> None:
    parameters = {"CorsAllowOrigin": "", "Text": 'a "b" c', "Url": "https://example.com/?a=b&c"}
    program = (
        "import json, sys; from samcli.cli.types import CfnParameterOverridesType as Type; "
        "print(json.dumps(Type().convert((sys.argv[1],), None, None)))"
    )
    python = ROOT / ".local/venvs/sam/bin/python"
    command = [str(python), "-c", program, write_overrides(parameters)]
    assert json.loads(subprocess.check_output(command, text=True)) == parameters


@given(st.integers(NEW_ACCOUNT, 10_000))
def test_imports_leave_room_for_requests(quota: int) -> None:
    transfers = choose_transfer_concurrency(quota)
    assert 2 <= transfers <= 16
    assert count_consumers(transfers) <= quota - 2
    assert transfers == 16 or count_consumers(transfers + 1) > 0.8 * quota


@pytest.mark.parametrize("transfers", [2, 3, 16, 64])
def test_consumers_are_those_of_the_template(transfers: int) -> None:
    template = apply_parameters(transform_template(read_template()), TransferConcurrency=str(transfers))
    failed = set(list_dead_letter_queues(template).values())
    maximums = [
        mapping["ScalingConfig"]["MaximumConcurrency"]
        for _, queue, mapping in list_consumers(template)
        if queue not in failed
    ]
    numbers = [transfers if maximum == {"Ref": "TransferConcurrency"} else maximum for maximum in maximums]
    assert sum(numbers) == count_consumers(transfers)
