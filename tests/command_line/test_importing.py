"""hf and github: submit, follow, and every way in which that ends."""

import signal

import pytest

from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import (
    MODEL_ID,
    TASK_ID,
    ApiServer,
    Fault,
    Response,
    make_progress,
    make_task,
    refuse,
    wait_until,
)

BERT = {"model_id": MODEL_ID, "name": "google-bert/bert-base-uncased", "status": "READY", "location": "s3://models/b/"}
STAGES = [
    make_task("PLANNING"),
    make_task("TRANSFERRING", progress=make_progress(50, 1000, bytes_per_second=25, seconds_left=38)),
    make_task("TRANSFERRING", progress=make_progress(60, 1000)),
    make_task("TRANSFERRING", progress=make_progress(950, 1000)),
    make_task("DONE", progress=make_progress(1000, 1000), models=[BERT]),
]


def test_a_model_of_the_hub_is_followed_to_its_end(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = list(STAGES)
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 0
    assert outcome.out == f"google-bert/bert-base-uncased: s3://models/b/ ({MODEL_ID})\n"
    assert outcome.err.splitlines() == [
        f"Task {TASK_ID}",
        "planning",
        "transferring 0/10 files, 5 %, 50 bytes of 1.0 kB, 25 bytes/s, 38 s left",
        "transferring 9/10 files, 95 %, 950 bytes of 1.0 kB",
        "done 10/10 files, 100 %, 1.0 kB of 1.0 kB",
    ]
    (submit,) = api.find("POST", "/upload/huggingface$")
    assert submit.json == {"model_tag": "bert-base-uncased", "revision": "main"}
    assert len(submit.headers["idempotency-key"]) == 36


def test_each_change_is_a_line_of_json(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = list(STAGES)
    outcome = command_line.run("hf", "bert-base-uncased", "--json")
    assert (outcome.code, outcome.lines) == (0, STAGES)


@pytest.mark.parametrize(
    ("arguments", "route", "body"),
    [
        (
            ["hf", "a/b@v1", "--allow", "*.json", "--allow", "*.txt", "--ignore", "onnx/*", "--weights", "safetensors"],
            "huggingface",
            {
                "model_tag": "a/b",
                "revision": "v1",
                "allow_patterns": ["*.json", "*.txt"],
                "ignore_patterns": ["onnx/*"],
                "weights": "safetensors",
            },
        ),
        (
            ["github", "owner/repo@feature/x"],
            "github",
            {"owner": "owner", "repo_name": "repo", "revision": "feature/x"},
        ),
        (
            ["github", "https://github.com/owner/repo.git", "--revision", "v2", "--ignore", "*.bin"],
            "github",
            {"owner": "owner", "repo_name": "repo", "revision": "v2", "ignore_patterns": ["*.bin"]},
        ),
    ],
)
def test_what_is_asked_for_is_sent(
    api: ApiServer, command_line: CommandLine, arguments: list[str], route: str, body: dict[str, object]
) -> None:
    assert command_line.run(*arguments).code == 0
    (submit,) = api.find("POST", f"/upload/{route}$")
    assert submit.json == body


def test_without_waiting_the_task_is_named(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [make_task("PLANNING")]
    outcome = command_line.run("hf", "bert-base-uncased", "--no-wait")
    assert (outcome.code, outcome.out) == (0, f"{TASK_ID}\n")
    assert f"modelhaul status {TASK_ID} --follow" in outcome.err
    assert command_line.run("hf", "bert-base-uncased", "--no-wait", "--json").json == make_task("PLANNING")


def test_a_failed_import_says_what_to_do(api: ApiServer, command_line: CommandLine) -> None:
    error = {"type": "unsafe-model", "retryable": False, "remedy": "Ask its owner for safetensors."}
    failed = make_task("FAILED", error_msg="pytorch_model.bin: imports os.system", error=error)
    api.tasks[TASK_ID] = [make_task("TRANSFERRING"), failed]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-3:] == [
        "Error: The import of bert-base-uncased@main failed.",
        "pytorch_model.bin: imports os.system",
        "Ask its owner for safetensors.",
    ]
    again = command_line.run("status", TASK_ID, "--follow", "--json")
    assert (again.code, again.lines) == (1, [failed])


EXISTS = refuse(
    409,
    "model-exists",
    "The model is here already",
    "It is.",
    model_id=MODEL_ID,
    models=[{"model_id": MODEL_ID, "name": "google-bert/bert-base-uncased"}],
)
RUNNING = refuse(
    409, "import-in-progress", "The model is being imported", "By another task.", model_id=MODEL_ID, task_id=TASK_ID
)


def test_a_model_that_is_here_is_a_conflict_that_says_where(api: ApiServer, command_line: CommandLine) -> None:
    record = api.add_model({"config.json": b"{}"})
    api.submits = [EXISTS] * 4
    outcome = command_line.run("hf", "bert-base-uncased")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.splitlines() == [
        "Error: The model is here already.",
        "It is.",
        f"{record['name']}: {record['location']} ({MODEL_ID})",
    ]
    error = command_line.run("hf", "bert-base-uncased", "--json").json["error"]
    assert (error["exit_code"], error["type"]) == (4, "urn:modelhaul:problem:model-exists")
    assert error["models"][0]["location"] == record["location"]
    fine = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (fine.code, fine.out) == (0, f"{record['name']}: {record['location']} ({MODEL_ID})\n")
    as_json = command_line.run("hf", "bert-base-uncased", "--exist-ok", "--json")
    assert as_json.json["models"][0]["location"] == record["location"]


def test_a_model_that_is_here_is_told_of_also_where_its_record_cannot_be_read(
    api: ApiServer, command_line: CommandLine
) -> None:
    api.submits = [EXISTS]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-1] == f"google-bert/bert-base-uncased: here already ({MODEL_ID})"


def test_an_import_under_way_is_named_and_can_be_followed(api: ApiServer, command_line: CommandLine) -> None:
    api.submits = [RUNNING] * 2
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-1] == f"  modelhaul status {TASK_ID} --follow"
    api.tasks[TASK_ID] = list(STAGES)
    followed = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (followed.code, followed.out) == (0, f"google-bert/bert-base-uncased: s3://models/b/ ({MODEL_ID})\n")
    assert api.imports == 0


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (refuse(404, "model-not-found", "No such model", "There is no model 'x'."), 3, ["No such model."]),
        (refuse(404, "revision-not-found", "No such revision"), 3, ["No such revision."]),
        (refuse(403, "access-required", "Access must be granted first", "Ask at https://hf.co/x."), 5, ["Ask at"]),
        (Response(403, b'{"message":"Forbidden"}'), 5, ["The API refuses the request."]),
        (refuse(400, "invalid-repository", "Not a repository on GitHub"), 2, ["Not a repository on GitHub."]),
        (
            refuse(
                422,
                "invalid-fields",
                "Unprocessable Entity",
                "two are wrong",
                fields=[{"field": "model_tag", "message": "too long"}, {"field": "revision", "message": "empty"}],
                remedy="Send others.",
            ),
            2,
            ["Unprocessable Entity.", "two are wrong", "  model_tag: too long", "  revision: empty", "Send others."],
        ),
        (refuse(502, "credentials-refused", "The configured token was refused"), 6, ["The configured token"]),
        (refuse(503, "rate-limited", "Rate-limited by the source", retry_after=3600), 6, ["Rate-limited"]),
        (Response(501, b"<html>"), 6, ["Not Implemented"]),
    ],
)
def test_refusals_have_words_and_codes(
    api: ApiServer, command_line: CommandLine, answer: Response, code: int, words: list[str]
) -> None:
    api.submits = [answer, answer]
    outcome = command_line.run("hf", "x")
    assert (outcome.code, outcome.out) == (code, "")
    for expected in words:
        assert expected in outcome.err
    as_json = command_line.run("hf", "x", "--json")
    assert (as_json.code, as_json.json["error"]["exit_code"]) == (code, code)
    assert len(api.find("POST", "huggingface")) == 2, "none of them is worth another try"


@pytest.mark.parametrize(
    "answer",
    [
        refuse(403, "not-signed", "Forbidden", "The request is not signed.", remedy="Sign it."),
        Response(
            403,
            b'{"message":"Missing Authentication Token"}',
            {"Content-Type": "application/json", "x-amzn-ErrorType": "MissingAuthenticationTokenException"},
        ),
    ],
    ids=["a problem", "API Gateway's words"],
)
def test_a_stack_that_wants_signatures_is_told_from_a_wrong_key(
    api: ApiServer, command_line: CommandLine, answer: Response
) -> None:
    api.faults = [Fault("GET", "models", answer=answer, times=2)]
    outcome = command_line.run("ls")
    assert (outcome.code, outcome.out) == (5, "")
    assert "signed" in outcome.err
    assert "does not sign requests. A stack with AuthMode=IAM" in outcome.err
    assert "docs/access.md" in command_line.run("ls", "--json").json["error"]["remedy"]


@pytest.mark.parametrize("kind", ["answer", "cut", "lost"])
def test_a_submit_that_does_not_get_through_is_repeated_and_starts_one_import(
    api: ApiServer, command_line: CommandLine, kind: str
) -> None:
    api.faults = [Fault("POST", "huggingface", kind, times=3)]  # type: ignore[arg-type]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 0
    assert api.imports == 1
    posts = api.find("POST", "huggingface")
    assert len(posts) == 4
    assert len({post.headers["idempotency-key"] for post in posts}) == 1
    assert outcome.err.count("Trying again in") == 3


def test_the_first_request_still_under_way_is_waited_for(api: ApiServer, command_line: CommandLine) -> None:
    busy = refuse(409, "request-in-progress", "The first request has no answer yet")
    api.faults = [Fault("POST", "huggingface", answer=busy)]
    assert command_line.run("hf", "bert-base-uncased").code == 0
    assert api.imports == 1


def test_a_model_that_is_being_deleted_is_a_conflict(api: ApiServer, command_line: CommandLine) -> None:
    api.submits = [refuse(409, "deletion-in-progress", "The model is being deleted", remedy="Wait.")]
    outcome = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (4, "Wait.")


@pytest.mark.slow
def test_the_other_side_says_when_to_try_again(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "", answer=refuse(503, "rate-limited", "Rate-limited", "Wait.", retry_after=1))]
    outcome = command_line.run("hf", "x")
    assert outcome.code == 0
    assert "Rate-limited. Wait. Trying again in 1 s." in outcome.err


def test_an_api_that_never_answers_ends_it(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "", "cut", times=100)]
    outcome = command_line.run("hf", "x")
    assert outcome.code == 6
    assert outcome.err.splitlines()[-2:] == ["Error: The API cannot be reached.", "The connection broke off."]
    assert len(api.requests) == 6


def test_following_outlasts_an_api_that_is_away(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = list(STAGES)
    api.faults = [Fault("GET", "tasks", "cut", times=8)]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 0
    assert "The import goes on; looking again." in outcome.err


def test_following_ends_when_there_is_no_answer_for_long(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhaul_cli.following.SILENCE", 0.0)
    api.faults = [Fault("GET", "tasks", "cut", times=100)]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 6
    assert f"modelhaul status {TASK_ID} --follow" in outcome.err


@pytest.mark.slow
def test_ctrl_c_leaves_the_import_running(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [make_task("TRANSFERRING")]
    process = command_line.start("hf", "bert-base-uncased", "--json")
    wait_until(lambda: len(api.find("GET", TASK_ID)) > 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"The import goes on as task {TASK_ID}" in err
    assert f"  modelhaul status {TASK_ID} --follow" in err
    assert f"  modelhaul cancel {TASK_ID}" in err
    assert '"exit_code": 130' in out
    assert api.find("DELETE", "") == []


def test_names_from_elsewhere_do_not_steer_the_terminal(api: ApiServer, command_line: CommandLine) -> None:
    hostile = "evil\x1b]0;title\x07[red]"
    api.tasks[TASK_ID] = [make_task("DONE", models=[{"name": hostile, "status": "SKIPPED", "lacks": ["config.json"]}])]
    outcome = command_line.run("hf", "x")
    assert outcome.out == "evil\ufffd]0;title\ufffd[red]: skipped, lacks config.json\n"
