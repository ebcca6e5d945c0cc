"""Models that the verification builds, and what its cleanup waits for and finds."""

from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from deployment.verify.api import Api, NoAuthentication
from deployment.verify.archives import build_model
from deployment.verify.imports import Imports
from deployment.verify.registry import Verification
from deployment.verify.target import Target, parse_model
from modelhaul.domain.required_files import RequiredFiles, find_missing_files
from tests.fakes.canned_aws import AwsError, CannedAws

MARKER = "0123abcd"
KEYS = [{"key_id": "1", "name": f"verify-{MARKER}"}, {"key_id": "2", "name": "of-a-user"}]


class RecordedApi(Api):
    """Responds to reads with what exists, and loses the responses to POSTs."""

    def read(self, path: str, **content: Any) -> dict[str, Any]:
        return {"keys": KEYS} if path == "keys" else {"tasks": []}

    def send(self, method: str, path: str, *, anonymous: bool = False, **content: Any) -> requests.Response:
        if method == "POST":
            raise KeyboardInterrupt
        sent.append((method, path))
        response = requests.Response()
        response.status_code = 204
        return response


sent: list[tuple[str, str]] = []


def open_imports(aws: CannedAws, **parameters: str) -> Imports:
    outputs = {"IncomingBucket": "incoming", "HubUrl": "http://hub"}
    stack = {
        "StackName": "two",
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/two/1",
        "CreationTime": datetime(2026, 11, 28, tzinfo=UTC),
        "StackStatus": "CREATE_COMPLETE",
        "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
    }
    aws.responses["cloudformation.DescribeStacks"] = {"Stacks": [stack]}
    target = Target(aws.session, "two", parse_model("a/b"), None)
    verification = Verification(target, datetime.now(UTC), MARKER)
    api = RecordedApi("http://api", requests.Session(), NoAuthentication())
    return Imports(api, verification.clients, verification.stack, MARKER)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("deployment.verify.imports.time.sleep", found.append)
    sent.clear()
    return found


@pytest.mark.parametrize("rule", RequiredFiles)
def test_a_model_has_the_files_that_the_stack_requires(rule: RequiredFiles) -> None:
    files = open_imports(CannedAws(), RequiredFiles=rule).build_model("post")
    assert not find_missing_files(files, files.get, rule)
    assert ("pytorch_model.bin" in files) == (rule is RequiredFiles.STRICT)
    assert files != build_model("post")


def test_what_an_interrupted_request_created_is_deleted(slept: list[float]) -> None:
    imports = open_imports(CannedAws())
    with pytest.raises(KeyboardInterrupt):
        imports.create_key(f"verify-{MARKER}")
    assert imports.delete_all() == []
    # The function may still work on the request.
    assert slept == [25.0]
    assert sent == [("DELETE", "keys/1")]


def test_the_cleanup_waits_only_after_an_interrupted_request(slept: list[float]) -> None:
    assert open_imports(CannedAws()).delete_all() == []
    assert slept == []


def test_the_cleanup_does_not_wait_for_an_archive_that_was_not_stored(slept: list[float]) -> None:
    def deny(_: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("AccessDenied")

    aws = CannedAws()
    aws.responses = {"s3.PutObject": deny, "s3.DeleteObject": {}}
    imports = open_imports(aws)
    with pytest.raises(ClientError):
        imports.drop_object(f"verify-{MARKER}.zip", b"")
    assert imports.delete_all() == []
    assert slept == []
