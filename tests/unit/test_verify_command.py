"""Arguments of `make verify-deployment`, and stacks that cannot be verified."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployment.verify.__main__ import main, open_target, parse_arguments, verify
from deployment.verify.registry import Verification
from deployment.verify.report import print_table
from deployment.verify.results import Outcome, Result, VerificationError
from deployment.verify.target import SourceModel, Target, open_aws_target, parse_model
from tests.fakes.canned_aws import AwsError, CannedAws

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], ["--stack-name", "modelhaul"]),
        (["STACK_NAME=two", "REGION=eu-west-1"], ["--stack-name", "two", "--region", "eu-west-1"]),
        (["STACK=local", "ONLY=stack cors"], ["--local", "local", "--only", "stack", "--only", "cors"]),
        (["GITHUB=a/b@c", "EVENTS=1", "JSON=x.json"], ["--github", "a/b@c", "--events", "--json", "x.json"]),
    ],
    ids=["default", "region", "local", "github"],
)
def test_make_passes_its_options(options: list[str], arguments: list[str]) -> None:
    command = ["make", "--just-print", "--no-print-directory", "verify-deployment", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GNUM"))}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    line = run.stdout.splitlines()[-1].replace('"', "").removeprefix("exec python -m deployment.verify ")
    assert set(arguments) <= set(line.split())
    # An empty option is the default.
    parse_arguments(arguments)


def test_a_model_has_a_revision() -> None:
    assert parse_model("a/b") == SourceModel("a/b", "main")
    assert parse_model("a/b@refs/pr/1") == SourceModel("a/b", "refs/pr/1")
    with pytest.raises(VerificationError, match=r"Invalid model 'b'. Use OWNER/NAME or OWNER/NAME@REVISION\."):
        parse_model("b")


def test_a_missing_region_and_profile_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(VerificationError, match="No AWS Region is set"):
        open_aws_target("modelhaul", None, None, None, None)
    with pytest.raises(VerificationError, match="The config profile"):
        open_aws_target("modelhaul", None, "unknown", None, None)


def test_a_local_stack_that_is_not_running_is_reported() -> None:
    with pytest.raises(VerificationError, match=r"'not-started' is not running\. To start it, run `make up`\."):
        open_target(parse_arguments(["--local", "not-started"]))


def test_a_missing_stack_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def reject(_: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationError")

    aws = CannedAws()
    aws.responses["cloudformation.DescribeStacks"] = reject
    target = Target(aws.session, "missing", parse_model("a/b"), None)
    monkeypatch.setattr("deployment.verify.__main__.open_target", lambda _: target)
    monkeypatch.setattr("deployment.verify.__main__.signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["verify"])
    assert main() == 2
    assert "Cannot read the stack missing in us-east-1" in capsys.readouterr().err
    with pytest.raises(VerificationError):
        verify(parse_arguments([]), Console(quiet=True))


def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    target = open_aws_target("modelhaul", "us-east-1", None, None, None)
    with pytest.raises(VerificationError, match="Unable to locate credentials"):
        _ = Verification(target, datetime.now(UTC), "0123abcd").stack.status


def test_the_table_shows_text_of_responses_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    text = "404 [red]no[/red] [1] \\[x]"
    print_table([Result("cors", Outcome.FAIL, text, 1.0, "docs/verification.md#api")], Console(width=120))
    output = capsys.readouterr().out
    assert text in output
    assert "See docs/verification.md#api" in output
    assert "0 PASS, 1 FAIL, 0 SKIPPED" in output
