"""The gateway responses are generated from the tables of the API's problems."""

import json

import pytest
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from modelhaul.domain.remedies import PROBLEM_REMEDIES
from modelhaul.entrypoints.problems import create_no_route_response, create_problem
from openapi.gateway import GATEWAY_RESPONSES, PROBLEMS, GatewayProblem, build_responses
from tests.template.rules import GATEWAY_STATUS
from tests.template.transformed import ROOT, read_template


def test_template_includes_the_file() -> None:
    definition = read_template()["Resources"]["Api"]["Properties"]["DefinitionBody"]
    location = definition["x-amazon-apigateway-gateway-responses"]["Fn::Transform"]["Parameters"]["Location"]
    assert ROOT / location == GATEWAY_RESPONSES


def test_there_is_a_response_of_each_type() -> None:
    assert PROBLEMS.keys() == GATEWAY_STATUS.keys()
    assert build_responses().keys() == PROBLEMS.keys()


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_that_functions_return_too_are_the_same(name: str) -> None:
    problem = PROBLEMS[name]
    if problem.kind in PROBLEM_REMEDIES and problem.status is not None:
        shown = json.loads(create_problem(problem.kind, problem.status, problem.detail).body or "")
        assert problem.render() == shown


def test_an_unknown_route_is_the_same_problem_everywhere() -> None:
    assert PROBLEMS["RESOURCE_NOT_FOUND"].render() == json.loads(create_no_route_response(NotFoundError()).body or "")


@pytest.mark.parametrize(("kind", "remedy"), [("never-seen", None), ("no-such-route", "Look elsewhere.")])
def test_a_problem_has_one_remedy(kind: str, remedy: str | None) -> None:
    with pytest.raises(ValueError, match="one remedy"):
        GatewayProblem(kind, None, "It failed.", remedy).render()


def test_texts_have_no_variables_of_mapping_templates() -> None:
    """API Gateway replaces `$context` and `$stageVariables` in them."""
    assert "$" not in json.dumps([problem.render() for problem in PROBLEMS.values()])
