"""The commands `tasks`, `status` and `cancel`."""

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from modelhaul_cli.follower import read_progress
from modelhaul_cli.output import Screen
from modelhaul_cli.progress import open_display
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import MODEL_ID, TASK_ID, ApiServer, Fault, make_progress, make_task

MODEL = {"model_id": MODEL_ID, "name": "a/b", "status": "IMPORTING"}
MOVING = make_task("TRANSFERRING", progress=make_progress(500, 1000, bytes_reused=200), models=[MODEL])


def test_tasks_are_listed(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = {TASK_ID: [MOVING], "2": [{**make_task("FAILED"), "id": "2"}]}
    outcome = command_line.run("tasks", "--status", "pending", "--source", "github", "--limit", "1")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["ID", TASK_ID[:8]]
    assert "transferring" in outcome.out
    assert "More results are available" in outcome.err
    assert api.requests[0].query == {"status": "PENDING", "source": "GITHUB", "limit": "1"}
    assert command_line.run("tasks", "--json").json["tasks"] == [states[0] for states in api.tasks.values()]


def test_status_is_shown_once(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [MOVING]
    outcome = command_line.run("status", TASK_ID)
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        f"task     {TASK_ID}",
        "model    bert-base-uncased@main",
        "source   huggingface",
        "status   PENDING, transferring 5/10 files",
        "created  2026-11-24T12:00:00Z",
        "updated  2026-11-24T12:00:07Z",
        "bytes    500 bytes of 1.0 kB, 200 bytes reused",
        f"a/b: importing ({MODEL_ID})",
    ]
    assert len(api.requests) == 1
    assert command_line.run("status", TASK_ID, "--json").json == MOVING


def make_waiting(reason: str = "source-unavailable", *, seconds: float = 40, attempt: int = 1) -> dict[str, Any]:
    now = datetime.now(UTC)
    return make_task(
        "TRANSFERRING",
        progress=make_progress(500, 1000, bytes_per_second=25),
        models=[MODEL],
        waiting={
            "reason": reason,
            "detail": "https://huggingface.co/a/b refused the connection.",
            "since": "2026-11-24T12:03:10Z",
            "attempt": attempt,
            "next_attempt": (now + timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        },
    )


@pytest.mark.parametrize(
    ("reason", "awaited"),
    [
        ("source-unavailable", "for the source"),
        ("stalled-transfer", "for the source"),
        ("storage-unavailable", "to retry a request to AWS"),
        ("rate-limited", "for the rate limit of the source"),
        ("digest-mismatch", "to retry a failed step"),
    ],
)
def test_status_says_what_the_task_waits_for(
    api: ApiServer, command_line: CommandLine, reason: str, awaited: str
) -> None:
    api.tasks[TASK_ID] = [make_waiting(reason)]
    (shown,) = [line for line in command_line.run("status", TASK_ID).out.splitlines() if line.startswith("waits")]
    since = datetime(2026, 11, 24, 12, 3, tzinfo=UTC).astimezone()
    assert shown.startswith(
        f"waits    waiting {awaited} since {since:%Y-%m-%d %H:%M} (https://huggingface.co/a/b refused the connection), "
    )
    assert re.search(r", next attempt in (3\d|40) s$", shown)
    api.tasks[TASK_ID] = [make_waiting(reason, seconds=-5)]
    assert ", next attempt now\n" in command_line.run("status", TASK_ID).out


def test_wait_of_today_is_shown_without_the_date(api: ApiServer, command_line: CommandLine) -> None:
    now = datetime.now().astimezone()
    task = make_waiting()
    api.tasks[TASK_ID] = [task | {"waiting": task["waiting"] | {"since": now.isoformat()}}]
    assert f" since {now:%H:%M} (" in command_line.run("status", TASK_ID).out


def test_waiting_task_is_listed_as_waiting(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = {TASK_ID: [make_waiting()]}
    _, row = command_line.run("tasks").out.splitlines()
    assert row.split()[1] == "waiting"


def test_follow_shows_the_beginning_and_the_end_of_a_wait(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [
        MOVING,
        make_waiting(),
        make_waiting(attempt=2),
        make_task("TRANSFERRING", progress=make_progress(510, 1000), models=[MODEL]),
        make_task("DONE", progress=make_progress(1000, 1000), models=[]),
    ]
    lines = command_line.run("status", TASK_ID, "--follow").err.splitlines()
    assert len(lines) == 4
    assert "waiting for the source since" in lines[1]
    assert "next attempt in" in lines[1]
    assert lines[2] == "transferring 5/10 files, 51 %, 510 bytes of 1.0 kB"


def test_terminal_shows_the_wait_above_the_bar_once() -> None:
    output, screen = io.StringIO(), Screen()
    screen.error_console = Console(file=output, force_terminal=True, width=150)
    with open_display(screen) as display:
        for attempt in (1, 2):
            display.update(read_progress(make_waiting(attempt=attempt)))
    assert output.getvalue().count("waiting for the source since") == 1
    assert re.search(r"next attempt in (3\d|40) s", output.getvalue())


def test_status_shows_who_submitted_and_who_cancelled(api: ApiServer, command_line: CommandLine) -> None:
    user = "arn:aws:sts::111122223333:assumed-role/importers/zoe"
    api.tasks[TASK_ID] = [make_task("CANCELLED", submitted_by="api-key:k1l2m3n4o5", cancelled_by=user)]
    shown = command_line.run("status", TASK_ID).out.splitlines()
    assert [line for line in shown if "by  " in line or " by " in line] == [
        "sent by  api-key:k1l2m3n4o5",
        f"ended by {user}",
    ]


def test_status_of_an_ended_task_is_its_outcome(api: ApiServer, command_line: CommandLine) -> None:
    done = {**MODEL, "status": "READY", "location": "s3://models/a/"}
    deleted = {"model_id": "5", "status": "DELETED"}
    api.tasks[TASK_ID] = [make_task("DONE", models=[done, deleted])]
    outcome = command_line.run("status", TASK_ID)
    assert (outcome.code, outcome.out.splitlines()[-2:]) == (0, [f"a/b: s3://models/a/ ({MODEL_ID})", "5: deleted"])
    failed = make_task("FAILED", error_msg="the ZIP is damaged", error={"type": "archive-refused", "retryable": True})
    api.tasks[TASK_ID] = [failed]
    outcome = command_line.run("status", TASK_ID)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-2:] == [
        "the ZIP is damaged",
        "This error may be temporary. Run the same command again.",
    ]
    as_json = command_line.run("status", TASK_ID, "--json")
    assert (as_json.code, as_json.json) == (1, failed), "one document, which includes the error"


def test_unknown_task_is_not_found(command_line: CommandLine) -> None:
    for command in (["status", "x/../y"], ["status", "x", "--follow"], ["cancel", "x"]):
        outcome = command_line.run(*command)
        assert outcome.code == 3
        assert "Task not found." in outcome.err


def test_task_is_cancelled(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [MOVING]
    assert command_line.run("cancel", TASK_ID, "--json").json == {"task_id": TASK_ID, "cancelled": True}


def test_cancel_with_a_lost_response_succeeds(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [MOVING]
    api.faults = [Fault("DELETE", "", "lost")]
    outcome = command_line.run("cancel", TASK_ID)
    assert (outcome.code, outcome.err.splitlines()[-1]) == (0, f"Cancelled {TASK_ID}.")


def test_ended_task_cannot_be_cancelled(api: ApiServer, command_line: CommandLine) -> None:
    outcome = command_line.run("cancel", TASK_ID)
    assert outcome.code == 4
    assert "Task already ended." in outcome.err


def make_tasks(*tags: str) -> dict[str, list[dict[str, Any]]]:
    """Tasks with these tags, whose IDs differ from the seventh digit on."""
    ids = [f"0b0cfd{n:02}-0000-4000-8000-000000000001" for n in range(len(tags))]
    commit = "86b5e0934494" + "0" * 28
    return {i: [make_task(id=i, model_tag=tag, commit=commit)] for i, tag in zip(ids, tags, strict=True)}


@pytest.mark.parametrize("text", ["team/second", "Team/Second@v1", "team/second@86b5e09", "0b0cfd01", "0b0cfd01-0000"])
def test_tasks_are_found_by_name_and_start_of_the_id(api: ApiServer, command_line: CommandLine, text: str) -> None:
    api.tasks = make_tasks("team/first@main", "team/second@v1", "team/second-large@v1")
    assert command_line.run("status", text, "--json").json["id"] == list(api.tasks)[1]


def test_task_of_an_archive_is_found_by_its_name(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [make_task("TRANSFERRING", model_tag="a@b.zip", source="LOCAL")]
    assert command_line.run("cancel", "a@b.zip", "--json").json["task_id"] == TASK_ID


def test_name_is_that_of_the_pending_task(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = make_tasks("a/b@main", "a/b@main", "a/b@v1")
    ids = list(api.tasks)
    api.tasks[ids[1]][0].update(task_status="PENDING", stage="TRANSFERRING")
    outcome = command_line.run("status", "a/b")
    assert f"task     {ids[1]}\n" in outcome.out
    assert f"3 tasks have the name 'a/b'. Using task {ids[1]}, the only pending one." in outcome.err
    assert command_line.run("cancel", "a/b", "--json").json["task_id"] == ids[1]


def test_name_of_ended_tasks_is_that_of_the_newest(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = make_tasks("a/b@main", "a/b@main")
    newest = next(iter(api.tasks))
    outcome = command_line.run("status", "a/b")
    assert f"task     {newest}\n" in outcome.out
    assert f"2 tasks have the name 'a/b'. Using task {newest}, the newest one." in outcome.err
    outcome = command_line.run("cancel", "a/b")
    assert outcome.code == 4
    assert f"No pending task has the name 'a/b'. The newest task with this name, {newest}, has ended." in outcome.err
    assert api.find("DELETE", "") == []


def test_task_is_found_by_the_name_of_its_model(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model({"config.json": b"{}"})
    api.tasks = {"other": [make_task(id="other", model_tag="models.zip", source="LOCAL")], **api.tasks}
    for text in ("Google-BERT/bert-base-uncased", "google-bert/bert-base-uncased@86b5e09"):
        assert command_line.run("status", text, "--json").json["id"] == TASK_ID
    assert command_line.run("cancel", "google-bert/bert-base-uncased").code == 4


def test_name_takes_precedence_over_the_start_of_an_id(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = make_tasks("a/b@0b0cfd0", "0b0cfd00@main", "a/b@main")
    ids = list(api.tasks)
    api.tasks[ids[2]][0]["commit"] = "0b0cfd0" + "0" * 33
    assert command_line.run("status", "0b0cfd00", "--json").json["id"] == ids[1]
    assert command_line.run("status", "a/b@0b0cfd0", "--json").json["id"] == ids[0]
    assert command_line.run("status", "a/b@0b0cfd", "--json").json["id"] == ids[2]


def test_names_are_searched_in_the_newest_tasks(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = {str(n): [make_task(id=str(n))] for n in range(1001)}
    api.tasks["1000"][0]["model_tag"] = "a/b@main"
    outcome = command_line.run("status", "a/b")
    assert outcome.code == 3
    assert "Only the newest 1,000 tasks were searched." in outcome.err
    assert len(api.find("GET", "/upload/tasks$")) == 10


@pytest.mark.parametrize("text", ["team/model", "0b0c"])
def test_ambiguous_task_lists_the_candidates(api: ApiServer, command_line: CommandLine, text: str) -> None:
    api.tasks = make_tasks("team/model@main", "team/model@v2")
    for states in api.tasks.values():
        states[0].update(task_status="PENDING", stage="TRANSFERRING")
    outcome = command_line.run("status", text)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"2 tasks match '{text}':" in outcome.err
    for task_id in api.tasks:
        assert task_id[:8] in outcome.err
    error = command_line.run("status", text, "--json").json["error"]
    assert error["candidates"] == list(api.tasks)


def test_task_list_fits_80_columns(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = make_tasks("sentence-transformers/all-MiniLM-L6-v2@main", "google-bert/bert-base-uncased@main")
    for states in api.tasks.values():
        states[0].update(stage="TRANSFERRING", progress=make_progress(1, 438_000_000))
    shown = command_line.show("tasks", columns=80)
    assert [line.split()[0] for line in shown if not line.startswith(" ")] == ["ID", "0b0cfd00", "0b0cfd01"]
    assert max(map(len, shown)) <= 80
    words = " ".join(shown).split()
    assert {"REV", "main", "COMMIT", "86b5e09", "SIZE", "438.0", "AGE", "transferring"} <= set(words)
    assert {"sentence-transformers/all-MiniLM-L6-v2", "google-bert/bert-base-uncased"} <= set(words)
