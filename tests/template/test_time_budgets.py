"""What a function behind a route waits for ends before its timeout."""

import pytest

from modelhaul.adapters.lambda_invoke import CONNECT_TIMEOUT, READ_TIMEOUT
from modelhaul_sources.github import RESOLVE_TIMEOUTS
from tests.template.transformed import read_template, transform_template

COLD_START = 2  # seconds
REQUESTS_OF_A_SUBMIT = 2
"""GitHub's repository and commit."""


@pytest.fixture(scope="module")
def timeouts() -> dict[str, int]:
    resources = transform_template(read_template())["Resources"].items()
    return {
        name: resource["Properties"]["Timeout"]
        for name, resource in resources
        if resource["Type"] == "AWS::Lambda::Function"
    }


def test_read_hub_waits_for_import_missing_and_can_report_its_failure(timeouts: dict[str, int]) -> None:
    assert timeouts["ImportMissingFunction"] + COLD_START <= READ_TIMEOUT
    assert timeouts["ReadHubFunction"] > CONNECT_TIMEOUT + READ_TIMEOUT


def test_a_submit_can_report_that_github_does_not_respond(timeouts: dict[str, int]) -> None:
    of_a_response = RESOLVE_TIMEOUTS.connect + RESOLVE_TIMEOUTS.read + 2 * RESOLVE_TIMEOUTS.stalled
    assert REQUESTS_OF_A_SUBMIT * of_a_response + COLD_START < timeouts["SubmitGithubFunction"]
