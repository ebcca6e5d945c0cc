"""`hf` and `github`: submit an import, follow it, and each outcome."""

import signal

import pytest

from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import (
    MODEL_ID,
    TASK_ID,
    ApiServer,
    Fault,
    Response,
    create_problem_response,
    make_progress,
    make_task,
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


def test_hub_import_is_followed_until_it_ends(api: ApiServer, command_line: CommandLine) -> None:
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


def test_warnings_of_the_policy_are_shown(api: ApiServer, command_line: CommandLine) -> None:
    warnings = [
        {"rule_id": "templates", "reason": "Review the template.", "matched": ["finding chat-template (low)"]},
        {"rule_id": "all", "reason": "Everything is reviewed.", "matched": []},
    ]
    policy = {"decision": "allow", "reason": "", "matched": [], "warnings": warnings, "digest": "0" * 64}
    api.tasks[TASK_ID] = [make_task("DONE", models=[{**BERT, "policy": policy}])]
    expected = [
        f"google-bert/bert-base-uncased: s3://models/b/ ({MODEL_ID})",
        "  warning: Review the template. (rule templates: finding chat-template (low))",
        "  warning: Everything is reviewed. (rule all)",
    ]
    assert command_line.run("hf", "bert-base-uncased").out.splitlines() == expected
    assert command_line.run("status", TASK_ID).out.splitlines()[-3:] == expected


def test_each_change_is_a_json_line(api: ApiServer, command_line: CommandLine) -> None:
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
def test_options_are_sent_in_the_request(
    api: ApiServer, command_line: CommandLine, arguments: list[str], route: str, body: dict[str, object]
) -> None:
    assert command_line.run(*arguments).code == 0
    (submit,) = api.find("POST", f"/upload/{route}$")
    assert submit.json == body


def test_no_wait_prints_the_task_id(api: ApiServer, command_line: CommandLine) -> None:
    api.tasks[TASK_ID] = [make_task("PLANNING")]
    outcome = command_line.run("hf", "bert-base-uncased", "--no-wait")
    assert (outcome.code, outcome.out) == (0, f"{TASK_ID}\n")
    assert f"modelhaul status {TASK_ID} --follow" in outcome.err
    assert command_line.run("hf", "bert-base-uncased", "--no-wait", "--json").json == make_task("PLANNING")


def test_failed_import_prints_the_remedy(api: ApiServer, command_line: CommandLine) -> None:
    error = {"type": "invalid-model", "retryable": False, "remedy": "Replace the file."}
    failed = make_task("FAILED", error_msg="model.safetensors: invalid header", error=error)
    api.tasks[TASK_ID] = [make_task("TRANSFERRING"), failed]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-3:] == [
        "Error: The import of bert-base-uncased@main failed.",
        "model.safetensors: invalid header",
        "Replace the file.",
    ]
    again = command_line.run("status", TASK_ID, "--follow", "--json")
    assert (again.code, again.lines) == (1, [failed])


EXISTS = create_problem_response(
    409,
    "model-exists",
    "Model already exists",
    "It is READY.",
    model_id=MODEL_ID,
    models=[{"model_id": MODEL_ID, "name": "google-bert/bert-base-uncased"}],
)
DELETE_MODEL = "Use the existing model, or delete it with `modelhaul rm MODEL_ID` and import again."
RUNNING = create_problem_response(
    409, "import-in-progress", "Import of the model in progress", "By another task.", model_id=MODEL_ID, task_id=TASK_ID
)


def test_existing_model_is_a_conflict_with_its_location(api: ApiServer, command_line: CommandLine) -> None:
    record = api.add_model({"config.json": b"{}"})
    api.submit_responses = [EXISTS] * 4
    outcome = command_line.run("hf", "bert-base-uncased")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.splitlines() == [
        "Error: Model already exists.",
        "It is READY.",
        f"{record['name']}: {record['location']} ({MODEL_ID})",
        f"{DELETE_MODEL} To succeed if the model already exists, pass --exist-ok.",
    ]
    error = command_line.run("hf", "bert-base-uncased", "--json").json["error"]
    assert (error["exit_code"], error["type"]) == (4, "urn:modelhaul:problem:model-exists")
    assert error["models"][0]["location"] == record["location"]
    fine = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (fine.code, fine.out) == (0, f"{record['name']}: {record['location']} ({MODEL_ID})\n")
    as_json = command_line.run("hf", "bert-base-uncased", "--exist-ok", "--json")
    assert as_json.json["models"][0]["location"] == record["location"]


def test_existing_model_is_reported_when_its_record_is_unavailable(api: ApiServer, command_line: CommandLine) -> None:
    api.submit_responses = [EXISTS]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-2] == f"google-bert/bert-base-uncased: already exists ({MODEL_ID})"


def test_running_import_is_reported_and_can_be_followed(api: ApiServer, command_line: CommandLine) -> None:
    api.submit_responses = [RUNNING] * 2
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-1] == f"  modelhaul status {TASK_ID} --follow"
    api.tasks[TASK_ID] = list(STAGES)
    followed = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (followed.code, followed.out) == (0, f"google-bert/bert-base-uncased: s3://models/b/ ({MODEL_ID})\n")
    assert api.imports == 0


def test_import_that_is_being_withdrawn_is_not_followed(api: ApiServer, command_line: CommandLine) -> None:
    api.models[MODEL_ID] = {"model_id": MODEL_ID, "name": "google-bert/bert-base-uncased", "status": "WITHDRAWING"}
    api.submit_responses = [RUNNING]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (4, "Import the model again in 30 minutes.")


@pytest.mark.parametrize(
    ("response", "code", "messages"),
    [
        (
            create_problem_response(404, "model-not-found", "Model not found", "There is no model 'x'."),
            3,
            ["Model not found."],
        ),
        (create_problem_response(404, "revision-not-found", "Revision not found"), 3, ["Revision not found."]),
        (
            create_problem_response(
                403, "access-required", "Access to the model is required", "Ask at https://hf.co/x."
            ),
            5,
            ["Ask at"],
        ),
        (
            create_problem_response(
                403,
                "policy-denied",
                "Denied by the import policy",
                "The import policy denies x. Rule no-gpl (license gpl-3.0): No.",
                remedy="Import another model.",
            ),
            1,
            ["Denied by the import policy.", "Rule no-gpl (license gpl-3.0): No.", "Import another model."],
        ),
        (create_problem_response(403, "storage-quota-exceeded", "Storage quota exceeded"), 1, ["modelhaul usage"]),
        (Response(403, b'{"message":"Forbidden"}'), 5, ["The API rejected the request."]),
        (
            create_problem_response(400, "invalid-repository", "Invalid GitHub repository"),
            2,
            ["Invalid GitHub repository."],
        ),
        (
            create_problem_response(
                422,
                "invalid-fields",
                "Unprocessable Entity",
                "allow_patterns.0: too long; revision: empty",
                fields=[
                    {"field": "allow_patterns.0", "message": "too long"},
                    {"field": "revision", "message": "empty"},
                ],
                remedy="Correct the values that the message names, and try again.",
            ),
            2,
            [
                "Unprocessable Entity.",
                "--allow: too long\n--revision: empty",
                "Correct the values that the message names, and try again.",
            ],
        ),
        (
            create_problem_response(502, "credentials-refused", "Configured token rejected by the source"),
            6,
            ["Configured token"],
        ),
        (
            create_problem_response(503, "rate-limited", "Rate-limited by the source", retry_after=3600),
            6,
            ["Rate-limited"],
        ),
        (Response(501, b"<html>"), 6, ["Not Implemented"]),
    ],
)
def test_error_responses_have_messages_and_exit_codes(
    api: ApiServer, command_line: CommandLine, response: Response, code: int, messages: list[str]
) -> None:
    api.submit_responses = [response, response]
    outcome = command_line.run("hf", "x")
    assert (outcome.code, outcome.out) == (code, "")
    for expected in messages:
        assert expected in outcome.err
    as_json = command_line.run("hf", "x", "--json")
    assert (as_json.code, as_json.json["error"]["exit_code"]) == (code, code)
    assert len(api.find("POST", "huggingface")) == 2, "none of them is retried"


@pytest.mark.parametrize(
    "response",
    [
        create_problem_response(403, "not-signed", "Forbidden", "The request is not signed.", remedy="Sign it."),
        Response(
            403,
            b'{"message":"Missing Authentication Token"}',
            {"Content-Type": "application/json", "x-amzn-ErrorType": "MissingAuthenticationTokenException"},
        ),
    ],
    ids=["problem details", "API Gateway"],
)
def test_required_signature_is_distinguished_from_a_wrong_key(
    api: ApiServer, command_line: CommandLine, response: Response
) -> None:
    api.faults = [Fault("GET", "models", response=response, times=2)]
    outcome = command_line.run("ls")
    assert (outcome.code, outcome.out) == (5, "")
    assert "signed" in outcome.err
    assert "unset\nMODELHAUL_API_KEY, or set MODELHAUL_AUTH=iam" in outcome.err
    assert "docs/access.md" in command_line.run("ls", "--json").json["error"]["remedy"]


@pytest.mark.parametrize("kind", ["response", "cut", "lost"])
def test_retried_submit_starts_one_import(api: ApiServer, command_line: CommandLine, kind: str) -> None:
    api.faults = [Fault("POST", "huggingface", kind, times=3)]  # type: ignore[arg-type]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 0
    assert api.imports == 1
    posts = api.find("POST", "huggingface")
    assert len(posts) == 4
    assert len({post.headers["idempotency-key"] for post in posts}) == 1
    assert outcome.err.count("Retrying in") == 3


def test_request_in_progress_is_retried(api: ApiServer, command_line: CommandLine) -> None:
    busy = create_problem_response(409, "request-in-progress", "Request with this Idempotency-Key in progress")
    api.faults = [Fault("POST", "huggingface", response=busy)]
    assert command_line.run("hf", "bert-base-uncased").code == 0
    assert api.imports == 1


def test_model_being_deleted_is_a_conflict(api: ApiServer, command_line: CommandLine) -> None:
    api.submit_responses = [
        create_problem_response(409, "deletion-in-progress", "Deletion of the model in progress", remedy="Wait.")
    ]
    outcome = command_line.run("hf", "bert-base-uncased", "--exist-ok")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (4, "Wait.")


@pytest.mark.slow
def test_retry_after_is_respected(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [
        Fault("POST", "", response=create_problem_response(503, "rate-limited", "Rate-limited", "Wait.", retry_after=1))
    ]
    outcome = command_line.run("hf", "x")
    assert outcome.code == 0
    assert "Rate-limited. Wait. Retrying in 1 s." in outcome.err


def test_unreachable_api_fails_after_six_attempts(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "", "cut", times=100)]
    outcome = command_line.run("hf", "x")
    assert outcome.code == 6
    assert outcome.err.splitlines()[-2:] == [
        f"Error: Cannot reach the API at {api.api_url}.",
        "The connection was interrupted.",
    ]
    assert len(api.requests) == 6


@pytest.mark.parametrize("kind", ["cut", "response"])
def test_following_continues_after_an_outage(api: ApiServer, command_line: CommandLine, kind: str) -> None:
    api.tasks[TASK_ID] = list(STAGES)
    api.faults = [Fault("GET", "tasks", kind, times=8)]  # type: ignore[arg-type]
    outcome = command_line.run("hf", "bert-base-uncased")
    assert outcome.code == 0
    assert "Retrying" in outcome.err


def test_following_fails_after_many_error_responses(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhaul_cli.follower.UNAVAILABLE_TIMEOUT", 0.0)
    api.faults = [Fault("GET", "tasks", times=100)]
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
    assert f"Task {TASK_ID} continues in the background." in err
    assert f"  modelhaul status {TASK_ID} --follow" in err
    assert f"  modelhaul cancel {TASK_ID}" in err
    assert '"exit_code": 130' in out
    assert api.find("DELETE", "") == []


def test_untrusted_names_cannot_control_the_terminal(api: ApiServer, command_line: CommandLine) -> None:
    hostile = "evil\x1b]0;title\x07[red]"
    api.tasks[TASK_ID] = [make_task("DONE", models=[{"name": hostile, "status": "SKIPPED", "lacks": ["config.json"]}])]
    outcome = command_line.run("hf", "x")
    assert outcome.out == "evil\ufffd]0;title\ufffd[red]: skipped, missing config.json\n"
