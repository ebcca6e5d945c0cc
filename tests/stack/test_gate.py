"""The gate on the deployed stack."""

import zipfile

import pytest

from tests.pickles import PLAIN, SYSTEM, build_torch_zip
from tests.stack.conftest import Stack
from tests.stack.test_import_archive import SMALL, make_archive, post
from tests.weights import wrap_weights

# Other weights than those of the archives' tests, which count what is used again.
FILES = {**SMALL, "model.safetensors": wrap_weights(b"gate" * 1000)}

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_a_model_that_could_run_code_fails_and_leaves_nothing(stack: Stack) -> None:
    archive = make_archive(("bad", {**FILES, "pytorch_model.bin": build_torch_zip(SYSTEM)}, zipfile.ZIP_DEFLATED))
    answer = post(stack, archive, model_name="gate/bad")
    assert answer.status_code == 201, answer.text
    task_id = answer.links["status"]["url"].rpartition("/")[2]
    task = stack.wait_for_end(task_id)
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", "unsafe-model")
    assert "could run code: pytorch_model.bin: model/data.pkl: Pickle imports os.system" in task["error_msg"]
    assert stack.list_keys("models/local/gate/bad/") == []
    stack.wait_until(lambda: stack.list_keys(f"staging/{task_id}/") == [])


def test_a_models_record_says_what_the_inspection_found(stack: Stack) -> None:
    files = {
        **FILES,
        "pytorch_model.bin": build_torch_zip(PLAIN),
        "modeling.py": b"print()\n",
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "hyperparams.yaml": b"a: 1\n",
        "training_args.bin": SYSTEM,
    }
    answer = post(stack, make_archive(("good", files, zipfile.ZIP_STORED)), model_name="gate/good")
    assert answer.status_code == 201, answer.text
    task = stack.wait_for_end(answer.links["status"]["url"].rpartition("/")[2])
    assert task["task_status"] == "DONE", task
    url = f"{stack.state.api_url}/upload/local/{task['models'][0]['model_id']}"
    gate = stack.http.get(url, timeout=30).json()["gate"]
    assert (gate["verdict"], gate["second_opinion"]) == ("unscanned", "clean"), "the scanner is there and was asked"
    assert gate["flags"] == [
        "left-out: training_args.bin: Pickle imports os.system",
        "code: modeling.py",
        "chat-template: tokenizer_config.json",
    ]
    assert [entry["path"] for entry in gate["scanned"]] == ["pytorch_model.bin"]
    verdicts = {entry["path"]: (entry["format"], entry["verdict"]) for entry in gate["files"]}
    assert verdicts["modeling.py"] == ("text", "unscanned")
    assert verdicts["hyperparams.yaml"] == ("yaml", "clean")
    assert gate["left_out"] == ["training_args.bin"]
    assert not [key for key in stack.list_keys("models/local/gate/good/") if key.endswith("training_args.bin")]


def test_siblings_of_a_refused_model_are_published(stack: Stack) -> None:
    archive = make_archive(
        ("gate-hostile", {**FILES, "extra.pkl": SYSTEM}, zipfile.ZIP_DEFLATED),
        ("gate-sound", FILES, zipfile.ZIP_DEFLATED),
    )
    answer = post(stack, archive)
    assert answer.status_code == 201, answer.text
    task = stack.wait_for_end(answer.links["status"]["url"].rpartition("/")[2])
    assert task["task_status"] == "DONE", task
    models = {entry["name"]: entry for entry in task["models"]}
    assert {name: entry["status"] for name, entry in models.items()} == {
        "gate-hostile": "FAILED",
        "gate-sound": "READY",
    }
    assert models["gate-hostile"]["error"]["type"] == "unsafe-model"
    assert "could run code: extra.pkl: Pickle imports os.system" in models["gate-hostile"]["error"]["detail"]
    assert stack.list_keys("models/local/gate-hostile/") == []
