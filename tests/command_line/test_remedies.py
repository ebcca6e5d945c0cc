"""Remedies name commands and options, not routes, fields and headers of the API."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import ModelhaulError
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.names import clean_name
from modelhaul.domain.remedies import PROBLEM_REMEDIES, TASK_REMEDIES
from modelhaul.domain.selection import Selection, Weights
from modelhaul.imports.submit_archive import check_file_name
from modelhaul_cli.remedies import find_problem_remedy, find_task_remedy
from modelhaul_sources.github_api import parse_name
from modelhaul_sources.huggingface_api import check_name

API_TERMS = re.compile(
    r"\b(GET|POST|DELETE) /|Retry-After|Idempotency-Key|x-api-key|_patterns|model_(name|tag)|_name\b|weights=|curl"
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


MODEL = ResolvedModel(Source.HUGGINGFACE, "org/model", "main", "0" * 40)
FILES = [SourceFile("model.safetensors", 1, Digest.parse(f"sha256:{'0' * 64}"))]


@pytest.mark.parametrize(
    "call",
    [
        lambda: choose_files(replace(MODEL, selection=Selection(("*.gguf",))), FILES),
        lambda: choose_files(replace(MODEL, selection=Selection((), ("*",))), FILES),
        lambda: choose_files(replace(MODEL, selection=Selection(weights=Weights.PYTORCH)), FILES),
        lambda: check_name("https://huggingface.co/org/model"),
        lambda: check_name("org/model@v1"),
        lambda: parse_name("x/https://github.com/openai/whisper"),
        lambda: check_file_name("models.tar"),
        lambda: clean_name("---"),
    ],
)
def test_errors_of_requests_have_no_api_terms(call: Callable[[], object]) -> None:
    with pytest.raises(ModelhaulError) as caught:
        call()
    error = caught.value
    remedy = find_problem_remedy(error.type, error.remedy or PROBLEM_REMEDIES[error.type])
    assert not API_TERMS.search(f"{error.detail} {remedy}")


def test_remedies_of_the_gateway_are_read() -> None:
    assert "throttled" in read_gateway_remedies()


def test_other_remedies_of_the_api_are_unchanged() -> None:
    assert find_problem_remedy("deletion-in-progress", "Wait.") == "Wait."
    assert find_task_remedy({"type": "invalid-model", "remedy": "Replace it."}) == "Replace it."
    assert find_task_remedy({"type": "invalid-model"}) == ""
