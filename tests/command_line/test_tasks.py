"""The commands `tasks`, `status` and `cancel`."""

from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import MODEL_ID, TASK_ID, ApiServer, Fault, make_progress, make_task

MODEL = {"model_id": MODEL_ID, "name": "a/b", "status": "IMPORTING"}
MOVING = make_task("TRANSFERRING", progress=make_progress(500, 1000, bytes_reused=200), models=[MODEL])


def test_tasks_are_listed(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks = {TASK_ID: [MOVING], "2": [{**make_task("FAILED"), "id": "2"}]}
    outcome = command_line.run("tasks", "--status", "pending", "--source", "github", "--limit", "1")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["TASK", TASK_ID]
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
