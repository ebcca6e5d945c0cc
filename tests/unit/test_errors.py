"""The error tree's drawing, its table of statuses, and its slugs."""

import re
from pathlib import Path

import pytest

from modelhaul.domain import errors
from modelhaul.domain.remedies import PROBLEM_REMEDIES, TASK_REMEDIES
from modelhaul.entrypoints import problems


def list_classes(base: type[errors.ModelhaulError] = errors.ModelhaulError) -> list[type[errors.ModelhaulError]]:
    return [base, *(c for child in base.__subclasses__() for c in list_classes(child))]


def test_the_drawing_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1])
            while stack and stack[-1][0] >= depth:
                stack.pop()
            drawn[found[2]] = stack[-1][1] if stack else "Exception"
            stack.append((depth, found[2]))
    assert drawn == {c.__name__: c.__bases__[0].__name__ for c in list_classes()}


def test_slugs_are_unique_and_legal() -> None:
    leaves = [c for c in list_classes() if not c.__subclasses__()]
    slugs = [c.type for c in leaves]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)


def test_the_runbook_names_slugs_that_exist() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", (root / "docs" / "runbook.md").read_text()))
    queries = set(re.findall(r"Name: !Sub \$\{StackName\}/(\S+)", (root / "monitoring.yaml").read_text()))
    assert len(named & queries) > 1
    assert len(named - queries) > 5
    assert named - queries <= {kind.type for kind in list_classes()}


@pytest.mark.parametrize("kind", list_classes())
def test_every_error_has_a_status(kind: type[errors.ModelhaulError]) -> None:
    assert any(base in problems._STATUS for base in kind.__mro__)


# What is answered to a request, and ends no task.
REFUSALS = {
    errors.InvalidRepositoryError,
    errors.InvalidFormError,
    errors.ModelFileNotFoundError,
    errors.ModelPinnedError,
    errors.TaskNotFoundError,
    errors.TaskEndedError,
    errors.UploadNotOpenError,
    errors.KeyNotFoundError,
    errors.SignatureNotFoundError,
    errors.InvalidPolicyError,
    errors.InvalidIdempotencyKeyError,
    errors.IdempotencyKeyReusedError,
    errors.RequestInProgressError,
}


def test_every_error_that_ends_a_task_has_a_remedy() -> None:
    """A step's transient error comes to RetriesExhaustedError."""
    ending = {kind.type for kind in list_classes(errors.PermanentError)[1:] if kind not in REFUSALS}
    assert set(TASK_REMEDIES) == ending
    assert len(set(TASK_REMEDIES.values())) == len(TASK_REMEDIES)


def test_every_problem_with_a_title_of_its_own_has_a_remedy() -> None:
    assert problems._TITLES.keys() <= PROBLEM_REMEDIES.keys()
    assert {kind.type for kind in problems._STATUS} <= PROBLEM_REMEDIES.keys()


def test_the_remedies_of_ended_imports_say_what_the_next_import_reuses() -> None:
    continued = {"import-cancelled", "import-stalled", "outage", "retries-exhausted"}
    assert {kind for kind, remedy in TASK_REMEDIES.items() if "large files are continued" in remedy} == continued
    assert not any("Verified files" in remedy for remedy in TASK_REMEDIES.values())


def test_remedies_are_sentences() -> None:
    assert all(re.fullmatch(r"[A-Z].*[^.]\.", remedy) for remedy in PROBLEM_REMEDIES.values())
