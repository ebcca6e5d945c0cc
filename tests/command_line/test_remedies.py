"""Remedies name commands and options, not routes, fields and headers of the API."""

import json
import re
from pathlib import Path

import pytest

from modelhaul.domain.remedies import PROBLEM_REMEDIES, TASK_REMEDIES
from modelhaul_cli.remedies import find_problem_remedy, find_task_remedy

API_TERMS = re.compile(
    r"\b(GET|POST|DELETE) /|Retry-After|Idempotency-Key|x-api-key|_patterns|model_name|weights=|curl"
)
# Only a client that signs its requests receives these problems.
SIGNED_TYPES = {"access-denied", "expired-credentials", "invalid-signature", "not-signed"}


def read_gateway_remedies() -> dict[str, str]:
    """Return the remedies of the responses of API Gateway, by the last part of the problem's type."""
    text = (Path(__file__).parents[2] / "openapi" / "gateway_responses.json").read_text()
    bodies = [json.loads(f'"{body}"') for body in re.findall(r'"(\{\\"type\\".*?\})"', text)]
    problems = [json.loads(body) for body in bodies]
    return {problem["type"].rpartition(":")[2]: problem["remedy"] for problem in problems}


@pytest.mark.parametrize(("error_type", "remedy"), [*PROBLEM_REMEDIES.items(), *read_gateway_remedies().items()])
def test_remedies_of_problems_have_no_api_terms(error_type: str, remedy: str) -> None:
    assert error_type in SIGNED_TYPES or not API_TERMS.search(find_problem_remedy(error_type, remedy))


@pytest.mark.parametrize(("error_type", "remedy"), TASK_REMEDIES.items())
def test_remedies_of_tasks_have_no_api_terms(error_type: str, remedy: str) -> None:
    assert not API_TERMS.search(find_task_remedy({"type": error_type, "remedy": remedy}))


def test_remedies_of_the_gateway_are_read() -> None:
    assert "throttled" in read_gateway_remedies()


def test_other_remedies_of_the_api_are_unchanged() -> None:
    assert find_problem_remedy("deletion-in-progress", "Wait.") == "Wait."
    assert find_task_remedy({"type": "invalid-model", "remedy": "Replace it."}) == "Replace it."
    assert find_task_remedy({"type": "invalid-model"}) == ""
