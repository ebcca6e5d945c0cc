"""zip: one POST, one PUT, or parts that another run goes on with."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from modelhaul_cli import uploading
from tests.command_line.conftest import CommandLine, make_archive
from tests.fakes.api_server import TASK_ID, ApiServer, Fault, Response, make_task, refuse, store_error, wait_until


@pytest.fixture
def in_parts(api: ApiServer) -> ApiServer:
    api.max_put = 5_000_000
    return api


def list_sent_parts(api: ApiServer) -> list[int]:
    return sorted(int(r.query["partNumber"]) for r in api.find("PUT", "/store/"))


def test_a_small_archive_is_posted(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    outcome = command_line.run("zip", path, "--name", "team/mine")
    assert outcome.code == 0, outcome.err
    (posted,) = api.find("POST", "/upload/local$")
    assert posted.query == {"model_name": "team/mine"}
    assert path.read_bytes() in api.archives[0]
    assert b'filename="small.zip"' in api.archives[0]


def test_a_post_whose_answer_is_lost_is_one_import(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    api.faults = [Fault("POST", "local", "lost")]
    assert command_line.run("zip", path).code == 0
    assert api.imports == 1


def test_an_api_that_takes_less_by_post_is_sent_it_otherwise(
    api: ApiServer, command_line: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    api.submits = [refuse(413, "archive-too-large", "The archive is too large")]
    assert command_line.run("zip", path).code == 0
    assert api.archives == [path.read_bytes()]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("PUT", "", "cut", times=2)],
        [Fault("PUT", "", answer=store_error(503, "SlowDown")), Fault("PUT", "", answer=Response(500))],
    ],
)
def test_a_larger_one_is_put(api: ApiServer, command_line: CommandLine, archive: Path, faults: list[Fault]) -> None:
    api.faults = [replace(fault) for fault in faults]
    outcome = command_line.run("zip", archive, "--name", "mine")
    assert outcome.code == 0, outcome.err
    assert api.archives == [archive.read_bytes()]
    (asked,) = api.find("POST", "/upload/local$")
    assert asked.json == {"file_name": "models.zip", "size": archive.stat().st_size, "model_name": "mine"}
    assert command_line.journal == ""
    assert "sending, 100 %, 5.6 MB of 5.6 MB" in outcome.err


def test_a_large_one_is_sent_in_parts(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    outcome = command_line.run("zip", archive, "--parallel", "3", "--json")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [1, 2, 3, 4, 5, 6]
    assert outcome.lines[-1]["task_status"] == "DONE"
    assert command_line.journal == ""


@pytest.mark.parametrize("kind", ["cut", "lost", "answer"])
def test_a_part_that_fails_is_sent_again(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, kind: str
) -> None:
    in_parts.faults = [Fault("PUT", "", kind, times=3)]  # type: ignore[arg-type]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [1, 1, 1, 1, 2, 3, 4, 5, 6]
    assert "100 %, 5.6 MB of 5.6 MB" in outcome.err, "what was sent twice counts once"


@pytest.mark.parametrize("kind", ["cut", "lost", "answer"])
def test_the_completion_may_be_repeated(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, kind: str
) -> None:
    broken = Response(200, b"<Error><Code>InternalError</Code></Error>")
    in_parts.faults = [Fault("POST", "/store/", kind, answer=broken)]  # type: ignore[arg-type]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]


def test_killed_in_the_middle_it_goes_on_with_what_is_missing(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    hold = Fault("PUT", "", "hold", query={"partNumber": "3"})
    in_parts.faults = [hold]
    in_parts.tasks[TASK_ID] = [make_task()]
    process = command_line.start("zip", archive, "--parallel", "1")
    wait_until(lambda: command_line.journal.count('"number": 2, "etag"') == 1)
    process.kill()
    process.communicate()
    hold.released.set()
    assert len(command_line.journal.splitlines()[1:]) == 2
    in_parts.requests.clear()
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [3, 4, 5, 6]
    assert "Going on: 2 of 6 parts have arrived before" in outcome.err
    assert in_parts.find("POST", "/upload/local$") == [], "the same task is gone on with"
    assert in_parts.imports == 1


def test_ctrl_c_says_how_to_go_on(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    hold = Fault("PUT", "", "hold", times=100)
    in_parts.faults = [hold]
    process = command_line.start("zip", archive)
    wait_until(lambda: len(in_parts.find("PUT", "")) == 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 of 6 parts have arrived. Run the same command again to go on" in err
    assert f"modelhaul cancel {TASK_ID}" in err
    hold.times = 0
    hold.released.set()
    assert command_line.run("zip", archive).code == 0
    assert in_parts.imports == 1


def test_a_network_that_stays_away_ends_it_and_the_next_run_goes_on(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    break_off_after_two_parts(in_parts, command_line, archive)
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == [3, 4, 5, 6]
    assert in_parts.archives == [archive.read_bytes()]


def break_off_after_two_parts(api: ApiServer, command_line: CommandLine, archive: Path) -> None:
    """The third PUT and those after it are cut until the program gives up."""
    api.faults = [Fault("PUT", "", "cut", query={"partNumber": "3"}, times=100)]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 6
    assert "2 of 6 parts have arrived. Run the same command again to go on." in outcome.err
    api.faults.clear()
    api.requests.clear()


@pytest.mark.parametrize("torn", ['{"number": 3, "eta', '{"number": 3, "etag": "\\"'])
def test_a_journal_cut_off_in_a_line_is_read_as_far_as_it_is_whole(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, torn: str
) -> None:
    break_off_after_two_parts(in_parts, command_line, archive)
    (journal,) = command_line.folder.glob("state/modelhaul/uploads/*.jsonl")
    assert journal.stat().st_mode & 0o077 == 0, "its addresses are secrets"
    with journal.open("a") as file:
        file.write(torn)
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == [3, 4, 5, 6]


def test_a_changed_file_another_name_or_api_is_another_upload(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    break_off_after_two_parts(in_parts, command_line, archive)
    archive.write_bytes(make_archive(5_700_000))
    assert command_line.run("zip", archive).code == 0
    assert in_parts.archives == [archive.read_bytes()]
    assert in_parts.imports == 2


@pytest.mark.parametrize("gone", ["cancelled", "unknown", "expired"])
def test_an_upload_that_is_no_longer_open_starts_anew(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, gone: str
) -> None:
    if gone == "expired":
        in_parts.expires_at = "2026-01-01T00:00:00Z"
    break_off_after_two_parts(in_parts, command_line, archive)
    if gone == "unknown":
        in_parts.tasks = {TASK_ID: [make_task()], "other": [make_task()]}
        in_parts.faults = [Fault("GET", "tasks", answer=refuse(404, "task-not-found", "No such task"))]
    elif gone == "cancelled":
        in_parts.tasks[TASK_ID] = [make_task("CANCELLED"), make_task()]
    assert command_line.run("zip", archive).code in (0, 1)
    assert list_sent_parts(in_parts) == [1, 2, 3, 4, 5, 6]
    assert in_parts.archives == [archive.read_bytes()]


def test_addresses_that_ended_before_their_time_are_asked_for_anew_once(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    break_off_after_two_parts(in_parts, command_line, archive)
    in_parts.faults = [Fault("PUT", "", answer=store_error(403, "ExpiredToken"))]
    outcome = command_line.run("zip", archive, "--parallel", "1", "--no-wait")
    assert outcome.code == 0, outcome.err
    assert list_sent_parts(in_parts) == [1, 2, 3, 3, 4, 5, 6]
    assert "starting anew" in outcome.err
    assert len(in_parts.find("DELETE", TASK_ID)) == 1, "the task before would wait for nothing"


def test_addresses_that_end_while_they_are_used_end_it(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    in_parts.faults = [Fault("PUT", "", answer=store_error(403, "AccessDenied"))]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 6
    assert "It answers 403 AccessDenied." in outcome.err
    assert "Run the same command again: it starts anew." in outcome.err
    assert command_line.journal == ""


def test_an_upload_that_arrived_is_not_sent_again(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    break_off_after_two_parts(in_parts, command_line, archive)
    in_parts.tasks[TASK_ID] = [make_task("INSPECTING"), make_task()]
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == []


def test_a_completion_that_got_through_unheard_is_noticed(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    in_parts.faults = [Fault("POST", "/store/", "lost", times=1)]
    in_parts.tasks[TASK_ID] = [make_task("INSPECTING"), make_task()]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert len(in_parts.find("POST", "/store/")) == 2


def test_a_completion_that_is_refused_ends_it(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "ARRIVAL_SECONDS", 0.0)
    in_parts.faults = [Fault("POST", "/store/", answer=store_error(404, "NoSuchUpload"))]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 6
    assert command_line.journal == ""


def test_a_file_that_changes_while_it_is_sent_is_not_imported(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    hold = Fault("PUT", "", "hold", times=1)
    in_parts.faults = [hold]
    process = command_line.start("zip", archive)
    wait_until(lambda: len(in_parts.parts) == 5)
    with archive.open("ab") as file:
        file.write(b"more")
    hold.released.set()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "The file changed while it was being sent." in err
    assert in_parts.archives == []
    assert in_parts.tasks[TASK_ID][0]["stage"] == "CANCELLED"


def test_one_file_is_sent_by_one_process(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    hold = Fault("PUT", "", "hold", times=100)
    in_parts.faults = [hold]
    first = command_line.start("zip", archive)
    wait_until(lambda: in_parts.find("PUT", ""))
    second = command_line.run("zip", archive)
    first.kill()
    first.communicate()
    assert second.code == 4
    assert "This file is being sent already." in second.err


@pytest.mark.parametrize("kind", ["missing", "folder", "no-zip"])
def test_what_is_no_archive_is_not_sent(api: ApiServer, command_line: CommandLine, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "models.zip"
    if kind == "folder":
        path.mkdir()
    elif kind == "no-zip":
        path.write_bytes(b"this is a tar")
    outcome = command_line.run("zip", path)
    assert outcome.code == 2
    assert api.requests == []


def test_a_hostile_archive_is_a_failed_import_by_either_way(
    api: ApiServer, command_line: CommandLine, archive: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.zip"
    small.write_bytes(make_archive(1000))
    api.submits = [
        refuse(400, "archive-refused", "The archive is refused", "../x leads outside.", reason="path-escape"),
        refuse(
            404,
            "no-model-in-archive",
            "No valid model in the archive",
            directories=[{"name": "a", "lacks": ["config.json", "tokenizer.json"]}],
        ),
    ]
    refused = command_line.run("zip", small)
    assert refused.code == 1
    assert "../x leads outside." in refused.err
    empty = command_line.run("zip", small)
    assert empty.code == 1
    assert "  a: lacks config.json, tokenizer.json" in empty.err
    api.tasks[TASK_ID] = [make_task("FAILED", error_msg="refused", error={"type": "archive-refused"})]
    assert command_line.run("zip", archive).code == 1
    api.tasks[TASK_ID] = [make_task("FAILED", error_msg="it is here", error={"type": "model-exists"})]
    assert command_line.run("zip", archive).code == 4


def test_models_that_failed_are_named_beside_the_others(
    api: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    error = {"type": "unsafe-model", "detail": "a.pt: imports os.system", "retryable": False}
    models = [
        {"model_id": "1", "name": "bad", "status": "FAILED", "error": error},
        {"model_id": "2", "name": "good", "status": "READY", "location": "s3://bucket/models/local/good/"},
        {"name": "notes", "status": "SKIPPED", "lacks": ["config.json"]},
    ]
    api.tasks[TASK_ID] = [make_task("DONE", models=models)]
    ended = command_line.run("zip", archive)
    assert ended.code == 1
    assert "bad: failed. a.pt: imports os.system" in ended.out
    assert "good: s3://bucket/models/local/good/ (2)" in ended.out
    assert "1 of 2 models failed" in ended.err
