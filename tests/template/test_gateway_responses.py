"""The gateway responses are generated from the tables of the API's problems."""

import json
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import hf_raise_for_status

from modelhaul.domain.remedies import PROBLEM_REMEDIES
from modelhaul.entrypoints.problems import create_no_route_response, create_problem
from openapi import hub_gateway
from openapi.gateway import GATEWAY_RESPONSES, PROBLEMS, GatewayProblem, build_responses
from tests.template.rules import GATEWAY_STATUS
from tests.template.transformed import ROOT, read_template


@pytest.mark.parametrize(
    ("api", "path"), [("Api", GATEWAY_RESPONSES), ("HubApi", hub_gateway.HUB_GATEWAY_RESPONSES)], ids=["Api", "HubApi"]
)
def test_template_includes_the_file(api: str, path: Path) -> None:
    definition = read_template()["Resources"][api]["Properties"]["DefinitionBody"]
    location = definition["x-amazon-apigateway-gateway-responses"]["Fn::Transform"]["Parameters"]["Location"]
    assert ROOT / location == path


def test_each_type_has_a_response() -> None:
    assert PROBLEMS.keys() == GATEWAY_STATUS.keys()
    assert build_responses().keys() == PROBLEMS.keys()


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_that_functions_return_too_are_the_same(name: str) -> None:
    problem = PROBLEMS[name]
    if problem.kind in PROBLEM_REMEDIES and problem.remedy is None and problem.status is not None:
        shown = json.loads(create_problem(problem.kind, problem.status, problem.detail).body or "")
        assert problem.render() == shown


def test_an_unknown_route_is_the_same_problem_everywhere() -> None:
    assert PROBLEMS["RESOURCE_NOT_FOUND"].render() == json.loads(create_no_route_response(NotFoundError()).body or "")


def test_a_problem_has_a_remedy() -> None:
    with pytest.raises(ValueError, match="no remedy"):
        GatewayProblem("never-seen", None, "It failed.").render()


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_title_has_one_source(name: str) -> None:
    problem = PROBLEMS[name]
    untitled = json.loads(create_problem(problem.kind, HTTPStatus.IM_A_TEAPOT, "It failed.").body or "")
    assert (problem.title is not None) is (untitled["title"] == HTTPStatus.IM_A_TEAPOT.phrase)


def test_texts_have_no_variables_of_mapping_templates() -> None:
    """API Gateway replaces `$context` and `$stageVariables` in them."""
    assert "$" not in json.dumps([problem.render() for problem in PROBLEMS.values()])
    assert "$" not in hub_gateway.render_responses()


def test_texts_of_headers_are_literals() -> None:
    """A mapping expression in quotes is a literal, which ends at the next quote."""
    for error in hub_gateway.ERRORS.values():
        for text in error.render()["responseParameters"].values():
            assert text.isascii()
            assert text.strip("'").count("'") == 0


@pytest.mark.parametrize("kind", ["UNAUTHORIZED", "ACCESS_DENIED"])
def test_hub_clients_report_an_invalid_key(kind: str) -> None:
    """And not a missing repository, as for other responses with 401."""
    response = hub_gateway.ERRORS[kind].render()
    headers = {
        name.removeprefix("gatewayresponse.header."): text.strip("'")
        for name, text in response["responseParameters"].items()
    }
    received = httpx2.Response(
        int(response["statusCode"]),
        headers=headers,
        text=response["responseTemplates"]["application/json"],
        request=httpx2.Request("GET", "https://hub.example/hf/api/models/org/model"),
    )
    with pytest.raises(HfHubHTTPError, match="modelhaul keys create NAME") as caught:
        hf_raise_for_status(received)
    assert type(caught.value) is HfHubHTTPError
