"""`zip`: one POST, one PUT, or a multipart upload that a later run resumes."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from modelhaul_cli import uploader
from tests.command_line.conftest import CommandLine, make_archive
from tests.fakes.api_server import (
    TASK_ID,
    ApiServer,
    Fault,
    Response,
    create_json_response,
    create_problem_response,
    create_store_error_response,
    make_task,
    wait_until,
)


@pytest.fixture
def in_parts(api: ApiServer) -> ApiServer:
    api.max_put = 5_000_000
    return api


def list_sent_parts(api: ApiServer) -> list[int]:
    return sorted(int(r.query["partNumber"]) for r in api.find("PUT", "/store/"))


def test_small_archive_is_posted(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    outcome = command_line.run("zip", path, "--name", "team/mine")
    assert outcome.code == 0, outcome.err
    (posted,) = api.find("POST", "/upload/local$")
    assert posted.query == {"model_name": "team/mine"}
    assert path.read_bytes() in api.archives[0]
    assert b'filename="small.zip"' in api.archives[0]


def test_retry_after_lost_response_starts_one_import(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    api.faults = [Fault("POST", "local", "lost")]
    assert command_line.run("zip", path).code == 0
    assert api.imports == 1


def test_archive_too_large_for_the_api_is_uploaded_to_s3(
    api: ApiServer, command_line: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    api.submit_responses = [create_problem_response(413, "archive-too-large", "Archive too large")]
    assert command_line.run("zip", path).code == 0
    assert api.archives == [path.read_bytes()]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("PUT", "", "cut", times=2)],
        [
            Fault("PUT", "", response=create_store_error_response(503, "SlowDown")),
            Fault("PUT", "", response=Response(500)),
        ],
    ],
)
def test_larger_archive_is_uploaded_by_put(
    api: ApiServer, command_line: CommandLine, archive: Path, faults: list[Fault]
) -> None:
    api.faults = [replace(fault) for fault in faults]
    outcome = command_line.run("zip", archive, "--name", "mine")
    assert outcome.code == 0, outcome.err
    assert api.archives == [archive.read_bytes()]
    (submit,) = api.find("POST", "/upload/local$")
    assert submit.json == {"file_name": "models.zip", "size": archive.stat().st_size, "model_name": "mine"}
    assert command_line.journal == ""
    assert "uploading, 100 %, 5.6 MB of 5.6 MB" in outcome.err


def test_large_archive_is_uploaded_in_parts(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    outcome = command_line.run("zip", archive, "--parallel", "3", "--json")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [1, 2, 3, 4, 5, 6]
    assert outcome.lines[-1]["task_status"] == "DONE"
    assert command_line.journal == ""


@pytest.mark.parametrize("kind", ["cut", "lost", "response"])
def test_failed_part_is_retried(in_parts: ApiServer, command_line: CommandLine, archive: Path, kind: str) -> None:
    in_parts.faults = [Fault("PUT", "", kind, times=3)]  # type: ignore[arg-type]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [1, 1, 1, 1, 2, 3, 4, 5, 6]
    assert "100 %, 5.6 MB of 5.6 MB" in outcome.err, "retried bytes count once"


@pytest.mark.parametrize("kind", ["cut", "lost", "response"])
def test_failed_completion_is_retried(in_parts: ApiServer, command_line: CommandLine, archive: Path, kind: str) -> None:
    broken = Response(200, b"<Error><Code>InternalError</Code></Error>")
    in_parts.faults = [Fault("POST", "/store/", kind, response=broken)]  # type: ignore[arg-type]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]


def test_next_run_after_a_kill_uploads_only_missing_parts(
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
    assert "Resuming: 2 of 6 parts are already uploaded" in outcome.err
    assert in_parts.find("POST", "/upload/local$") == [], "the task is resumed"
    assert in_parts.imports == 1


def test_ctrl_c_prints_how_to_resume(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    hold = Fault("PUT", "", "hold", times=100)
    in_parts.faults = [hold]
    process = command_line.start("zip", archive)
    wait_until(lambda: len(in_parts.find("PUT", "")) == 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 of 6 parts are uploaded. To resume, run the same command again" in err
    assert f"modelhaul cancel {TASK_ID}" in err
    hold.times = 0
    hold.released.set()
    assert command_line.run("zip", archive).code == 0
    assert in_parts.imports == 1


def test_next_run_resumes_after_a_network_failure(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == [3, 4, 5, 6]
    assert in_parts.archives == [archive.read_bytes()]


def fail_after_two_parts(api: ApiServer, command_line: CommandLine, archive: Path) -> None:
    """Interrupt the third PUT and the following ones until the command fails."""
    api.faults = [Fault("PUT", "", "cut", query={"partNumber": "3"}, times=100)]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 6
    assert "2 of 6 parts are uploaded. To resume, run the same command again before" in outcome.err
    api.faults.clear()
    api.requests.clear()


@pytest.mark.parametrize("torn", ['{"number": 3, "eta', '{"number": 3, "etag": "\\"'])
def test_incomplete_last_line_of_the_journal_is_ignored(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, torn: str
) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    (journal,) = command_line.folder.glob("state/modelhaul/uploads/*.jsonl")
    assert journal.stat().st_mode & 0o077 == 0, "presigned URLs are secrets"
    with journal.open("a") as file:
        file.write(torn)
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == [3, 4, 5, 6]


def test_changed_file_is_a_new_upload(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    archive.write_bytes(make_archive(5_700_000))
    assert command_line.run("zip", archive).code == 0
    assert in_parts.archives == [archive.read_bytes()]
    assert in_parts.imports == 2


@pytest.mark.parametrize("gone", ["cancelled", "unknown", "expired"])
def test_closed_upload_is_replaced_by_a_new_one(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, gone: str
) -> None:
    if gone == "expired":
        in_parts.upload_until = "2026-01-01T00:00:00Z"
    fail_after_two_parts(in_parts, command_line, archive)
    if gone == "unknown":
        in_parts.tasks = {TASK_ID: [make_task()], "other": [make_task()]}
        in_parts.faults = [
            Fault("GET", "tasks", response=create_problem_response(404, "task-not-found", "Task not found"))
        ]
    elif gone == "cancelled":
        in_parts.tasks[TASK_ID] = [make_task("CANCELLED"), make_task()]
    assert command_line.run("zip", archive).code in (0, 1)
    assert list_sent_parts(in_parts) == [1, 2, 3, 4, 5, 6]
    assert in_parts.archives == [archive.read_bytes()]


def test_resumed_upload_with_expired_urls_at_an_older_stack_starts_a_new_upload(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    in_parts.renews_urls = False
    in_parts.expire_urls()
    outcome = command_line.run("zip", archive, "--parallel", "1", "--no-wait")
    assert outcome.code == 0, outcome.err
    assert list_sent_parts(in_parts) == [1, 2, 3, 3, 4, 5, 6]
    assert "Starting a new upload" in outcome.err
    assert len(in_parts.find("DELETE", TASK_ID)) == 1, "the previous task is cancelled"


def test_new_upload_with_invalid_urls_fails(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    in_parts.faults = [Fault("PUT", "", response=create_store_error_response(403, "AccessDenied"), times=2)]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 6
    assert len(in_parts.find("POST", "/urls$")) == 1, "the new URL is rejected as well"
    assert "S3 responded with 403 AccessDenied." in outcome.err
    assert "Run the same command again to start a new upload." in outcome.err
    assert command_line.journal == ""


# What S3 returns when a URL has expired, its credentials have, or somebody revoked them.
EXPIRIES = [(403, "AccessDenied"), (400, "ExpiredToken"), (400, "InvalidToken"), (403, "RequestExpired")]


@pytest.mark.parametrize(("status", "code"), EXPIRIES)
def test_upload_goes_on_with_new_urls_when_the_first_have_expired(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, status: int, code: str
) -> None:
    in_parts.expiry = create_store_error_response(status, code)
    hold = Fault("PUT", "", "hold", query={"partNumber": "3"})
    in_parts.faults = [hold]
    process = command_line.start("zip", archive, "--parallel", "1")
    wait_until(lambda: command_line.journal.count('"number": 2, "etag"') == 1)
    in_parts.expire_urls()
    hold.released.set()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == [1, 2, 3, 3, 4, 5, 6]
    (renewal,) = in_parts.find("POST", "/urls$")
    assert renewal.json == {"parts": [3, 4, 5, 6]}
    assert "The presigned URLs have expired. Requesting new ones." in err
    assert in_parts.imports == 1
    assert command_line.journal == ""


def test_threads_renew_expired_urls_once(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    holds = [Fault("PUT", "", "hold", query={"partNumber": str(number)}) for number in range(1, 5)]
    in_parts.faults = [*holds]
    process = command_line.start("zip", archive, "--parallel", "4")
    wait_until(lambda: len(in_parts.find("PUT", "")) == 4)
    in_parts.expire_urls()
    for hold in holds:
        hold.released.set()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(in_parts.find("POST", "/urls$")) == 1
    assert in_parts.archives == [archive.read_bytes()]


def test_urls_may_expire_again_and_again(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_part = uploader.UploadUrls.add_part

    def expire(urls: uploader.UploadUrls, number: int, etag: str) -> None:
        add_part(urls, number, etag)
        in_parts.expire_urls()

    monkeypatch.setattr(uploader.UploadUrls, "add_part", expire)
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert 2 <= len(in_parts.find("POST", "/urls$")) <= 6


def test_completion_gets_a_new_url(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    in_parts.faults = [Fault("POST", "/store/", response=create_store_error_response(400, "ExpiredToken"))]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    (renewal,) = in_parts.find("POST", "/urls$")
    assert renewal.json == {"parts": []}
    assert in_parts.archives == [archive.read_bytes()]


@pytest.mark.parametrize("known", [True, False])
def test_next_run_continues_an_upload_whose_urls_have_expired(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, known: bool
) -> None:
    if known:
        in_parts.expires_at = "2026-01-01T00:00:00Z"
    fail_after_two_parts(in_parts, command_line, archive)
    in_parts.requests.clear()
    in_parts.expires_at = "2126-11-25T12:00:00Z"
    in_parts.expire_urls()
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 0, outcome.err
    assert in_parts.archives == [archive.read_bytes()]
    assert list_sent_parts(in_parts) == ([3, 4, 5, 6] if known else [3, 3, 4, 5, 6])
    (renewal,) = in_parts.find("POST", "/urls$")
    assert renewal.json == {"parts": [3, 4, 5, 6]}
    assert in_parts.imports == 1


def test_single_put_gets_a_new_url(api: ApiServer, command_line: CommandLine, archive: Path) -> None:
    api.faults = [Fault("PUT", "", response=create_store_error_response(403, "AccessDenied"))]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert api.archives == [archive.read_bytes()]
    assert api.find("POST", "/urls$")[0].json == {"parts": [1]}


def test_rejected_length_is_no_expiry(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    in_parts.faults = [Fault("PUT", "", response=create_store_error_response(403, "SignatureDoesNotMatch"))]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 1
    assert "S3 rejected the request" in outcome.err
    assert in_parts.find("POST", "/urls$") == []


def test_api_that_is_unavailable_for_new_urls_keeps_the_upload(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    in_parts.expire_urls()
    in_parts.faults = [Fault("POST", "/urls$", times=100)]
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 6
    assert "2 of 6 parts are uploaded. To resume" in outcome.err
    assert len(command_line.journal.splitlines()) == 3


def test_received_archive_is_not_uploaded_again(in_parts: ApiServer, command_line: CommandLine, archive: Path) -> None:
    fail_after_two_parts(in_parts, command_line, archive)
    in_parts.tasks[TASK_ID] = [make_task("INSPECTING"), make_task()]
    assert command_line.run("zip", archive).code == 0
    assert list_sent_parts(in_parts) == []


def test_completion_with_a_lost_response_is_detected(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    in_parts.faults = [Fault("POST", "/store/", "lost", times=1)]
    in_parts.tasks[TASK_ID] = [make_task("INSPECTING"), make_task()]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert len(in_parts.find("POST", "/store/")) == 2


def test_rejected_completion_fails(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "COMPLETION_TIMEOUT", 0.0)
    in_parts.faults = [Fault("POST", "/store/", response=create_store_error_response(404, "NoSuchUpload"))]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 6
    assert command_line.journal == ""


def test_file_that_changes_during_the_upload_is_not_imported(
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
    assert "The file changed during the upload." in err
    assert in_parts.archives == []
    assert in_parts.tasks[TASK_ID][0]["stage"] == "CANCELLED"


def test_second_process_cannot_upload_the_same_file(
    in_parts: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    hold = Fault("PUT", "", "hold", times=100)
    in_parts.faults = [hold]
    first = command_line.start("zip", archive)
    wait_until(lambda: in_parts.find("PUT", ""))
    second = command_line.run("zip", archive)
    first.kill()
    first.communicate()
    assert second.code == 4
    assert "Upload already in progress." in second.err
    assert "Wait until that process ends, or stop it." in second.err


@pytest.mark.parametrize("kind", ["missing", "folder", "no-zip"])
def test_invalid_archive_is_not_uploaded(api: ApiServer, command_line: CommandLine, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "models.zip"
    if kind == "folder":
        path.mkdir()
    elif kind == "no-zip":
        path.write_bytes(b"this is a tar")
    outcome = command_line.run("zip", path)
    assert outcome.code == 2
    assert api.requests == []


def test_rejected_archive_is_a_failed_import_by_post_and_by_upload(
    api: ApiServer, command_line: CommandLine, archive: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.zip"
    small.write_bytes(make_archive(1000))
    api.submit_responses = [
        create_problem_response(
            400, "archive-refused", "Archive rejected", "../x leads outside.", reason="path-escape"
        ),
        create_problem_response(
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
    assert "  a: missing config.json, tokenizer.json" in empty.err
    api.tasks[TASK_ID] = [make_task("FAILED", error_msg="refused", error={"type": "archive-refused"})]
    assert command_line.run("zip", archive).code == 1
    api.tasks[TASK_ID] = [make_task("FAILED", error_msg="it is here", error={"type": "model-exists"})]
    assert command_line.run("zip", archive).code == 4


def test_interrupted_put_is_restarted(api: ApiServer, command_line: CommandLine, archive: Path) -> None:
    api.faults = [Fault("PUT", "", "cut", times=6)]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 6
    assert "To restart it from the beginning, run the same command again." in outcome.err
    assert command_line.run("zip", archive).code == 0
    assert api.archives == [archive.read_bytes()]


def test_existing_model_of_an_archive_is_a_conflict(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    path.write_bytes(make_archive(1000))
    models = [{"model_id": "1", "name": "a"}, {"model_id": "2", "name": "b"}]
    api.submit_responses = [create_problem_response(409, "model-exists", "Model already exists", models=models)]
    outcome = command_line.run("zip", path)
    assert outcome.code == 4
    assert outcome.err.splitlines()[-3:] == [
        "a: already exists (1)",
        "b: already exists (2)",
        "Use the existing models, or delete each of them with `modelhaul rm MODEL_ID` and import again.",
    ]


def test_failed_and_imported_models_of_an_archive_are_printed(
    api: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    error = {
        "type": "unsafe-model",
        "detail": "a.pt: imports os.system.",
        "remedy": "Use safetensors.",
    }
    models = [
        {"model_id": "1", "name": "bad", "status": "FAILED", "error": error},
        {"model_id": "2", "name": "good", "status": "READY", "location": "s3://bucket/models/local/good/"},
        {"name": "notes", "status": "SKIPPED", "lacks": ["config.json"]},
    ]
    api.tasks[TASK_ID] = [make_task("DONE", models=models)]
    ended = command_line.run("zip", archive)
    assert ended.code == 1
    assert "bad: failed. a.pt: imports os.system. Use safetensors." in ended.out
    assert "good: s3://bucket/models/local/good/ (2)" in ended.out
    assert "1 of 2 models failed" in ended.err


@pytest.mark.parametrize("kind", ["invalid-api-key", "expired-credentials", "access-denied"])
@pytest.mark.parametrize("resumed", [False, True])
def test_caller_without_access_to_new_urls_keeps_the_upload(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, kind: str, resumed: bool
) -> None:
    if resumed:
        fail_after_two_parts(in_parts, command_line, archive)
        in_parts.expire_urls()
    else:
        expired = create_store_error_response(403, "AccessDenied")
        in_parts.faults = [Fault("PUT", "", response=expired, query={"partNumber": "3"})]
    in_parts.faults.append(Fault("POST", "/urls$", response=create_problem_response(403, kind, "Access denied")))
    outcome = command_line.run("zip", archive, "--parallel", "1")
    assert outcome.code == 5, outcome.err
    assert in_parts.find("DELETE", TASK_ID) == []
    assert "2 of 6 parts are uploaded. To resume" in outcome.err
    assert command_line.run("zip", archive, "--parallel", "1").code == 0
    assert in_parts.imports == 1
    assert in_parts.archives == [archive.read_bytes()]


def test_received_archive_with_lost_response_and_expired_url_is_not_cancelled(
    api: ApiServer, command_line: CommandLine, archive: Path
) -> None:
    api.faults = [
        Fault("PUT", "", "lost"),
        Fault("PUT", "", response=create_store_error_response(403, "AccessDenied")),
    ]
    outcome = command_line.run("zip", archive)
    assert outcome.code == 0, outcome.err
    assert api.find("DELETE", TASK_ID) == []
    assert api.archives == [archive.read_bytes()]


@pytest.mark.parametrize("uploaded", [2, 6])
def test_new_urls_of_another_form_start_a_new_upload(
    in_parts: ApiServer, command_line: CommandLine, archive: Path, uploaded: int
) -> None:
    if uploaded == 2:
        fail_after_two_parts(in_parts, command_line, archive)
    else:
        in_parts.faults = [Fault("POST", "/store/", "cut", times=100)]
        assert command_line.run("zip", archive).code == 6
        in_parts.faults.clear()
    in_parts.expire_urls()
    whole = {"method": "PUT", "url": f"{in_parts.endpoint}/store/whole"}
    ticket = {"task_id": TASK_ID, "expires_at": in_parts.expires_at, "upload": whole}
    in_parts.faults = [Fault("POST", "/urls$", response=create_json_response(200, ticket))]
    outcome = command_line.run("zip", archive, "--parallel", "1", "--no-wait")
    assert outcome.code == 0, outcome.err
    assert "Starting a new upload" in outcome.err
    assert in_parts.archives == [archive.read_bytes()]
