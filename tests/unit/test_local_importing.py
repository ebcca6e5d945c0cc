"""What a person sees of an import through the local stack."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from local.importing import describe_progress, follow_task

PLANNED = {"task_status": "PENDING", "stage": "PLANNING"}
HALF = {
    "task_status": "PENDING",
    "stage": "TRANSFERRING",
    "progress": {"files_done": 1, "files_total": 3, "bytes_done": 50, "bytes_total": 100, "bytes_reused": 0},
}
DONE = {
    "task_status": "DONE",
    "stage": "DONE",
    "progress": {"files_done": 3, "files_total": 3, "bytes_done": 100, "bytes_total": 100, "bytes_reused": 1200},
}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (PLANNED, ("PENDING planning", 0, 0)),
        (HALF, ("PENDING transferring 1/3 files 50 %", 50, 100)),
        (DONE, ("DONE 3/3 files 100 % 1,200 bytes reused", 100, 100)),
    ],
)
def test_progress_in_words(task: dict[str, object], expected: tuple[str, int, int]) -> None:
    assert describe_progress(task) == expected


def test_without_a_terminal_each_change_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.importing.POLL_SECONDS", 0)
    answers: Iterator[dict[str, Any]] = iter([PLANNED, PLANNED, HALF, DONE])
    output = io.StringIO()

    task = follow_task(lambda: next(answers), Console(file=output))

    assert task == DONE
    assert output.getvalue().splitlines() == [
        "PENDING planning",
        "PENDING transferring 1/3 files 50 %",
        "DONE 3/3 files 100 % 1,200 bytes reused",
    ]
