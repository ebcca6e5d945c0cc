"""What may be published, over the whole pipeline: nothing that could run, nothing that is not what it says."""

import io
import json
import struct
import zipfile
from typing import Any

import pytest

from modelhaul.model import GateVerdict, PicklePolicy
from modelhaul.task import Task, TaskStatus
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.unit.test_pickles import PLAIN, SYSTEM, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}


def import_files(files: dict[str, bytes], policy: PicklePolicy = PicklePolicy.BLOCK) -> tuple[Deployment, Task]:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": files}}), pickle_policy=policy)
    task = deployment.submit(NAME)
    deployment.run()
    return deployment, deployment.find_task(task.id)


def read_manifest(deployment: Deployment, task: Task) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(deployment.read(f"manifests/{task.model_ids[0]}.json"))
    return manifest


def test_a_hostile_pickle_is_removed_and_named() -> None:
    deployment, task = import_files(MODEL | {"pytorch_model.bin": build_torch_zip(SYSTEM)})
    assert task.error is not None
    assert (task.status, task.error.type, task.error.retryable) == (TaskStatus.FAILED, "unsafe-model", False)
    assert "pytorch_model.bin: model/data.pkl" not in task.error.detail
    assert task.error.detail.startswith("pytorch_model.bin: imports os.system")
    assert deployment.store.keys == [], "neither visible nor staged"
    deployment.check_promises({})


def test_what_was_removed_is_not_found_by_another_import() -> None:
    source = InMemoryModelSource({NAME: {"main": MODEL | {"a.bin": SYSTEM}}, "org/other": {"main": MODEL}})
    deployment = Deployment(source)
    deployment.submit(NAME)
    deployment.run()
    other = deployment.submit("org/other")
    deployment.run()
    assert deployment.find_task(other.id).status is TaskStatus.DONE
    assert deployment.read(source.prefix("org/other") + "model.safetensors") == MODEL["model.safetensors"]


def test_with_a_warning_it_is_published_and_said() -> None:
    deployment, task = import_files(MODEL | {"a.bin": SYSTEM, "b.bin": PLAIN}, PicklePolicy.WARN)
    assert task.status is TaskStatus.DONE
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.reasons) == (GateVerdict.UNSAFE, ("a.bin: imports os.system",))
    shown = read_manifest(deployment, task)
    assert shown["gate"]["verdict"] == "unsafe"
    assert shown["gate"]["reasons"] == ["a.bin: imports os.system"]
    digests = {entry["path"]: entry["sha256"] for entry in shown["files"]}
    assert shown["gate"]["scanned"] == [{"path": path, "sha256": digests[path]} for path in ("a.bin", "b.bin")]


def test_switched_off_nothing_is_looked_into() -> None:
    deployment, task = import_files(MODEL | {"a.bin": SYSTEM}, PicklePolicy.OFF)
    assert task.status is TaskStatus.DONE
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.scanned) == (GateVerdict.UNSCANNED, ())


def test_a_clean_model_says_so_with_what_a_reader_should_know() -> None:
    more = {
        "pytorch_model.bin": build_torch_zip(PLAIN),
        "modeling.py": b"print()",
        "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "chat_template.jinja": b"{{ messages }}",
        "old.h5": b"\x89HDF",
    }
    deployment, task = import_files(MODEL | more)
    assert task.status is TaskStatus.DONE, task.error
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.verdict is GateVerdict.CLEAN
    assert model.gate.flags == (
        "auto-map: config.json",
        "chat-template: chat_template.jinja",
        "chat-template: tokenizer_config.json",
        "code: modeling.py",
        "keras: old.h5",
    )
    assert [path for path, _ in model.gate.scanned] == ["pytorch_model.bin"]


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "model.safetensors: is no safetensors"),
        ("sub/x.safetensors", wrap_weights(bytes(100))[:-1], "sub/x.safetensors: the tensors end at 100 of 99"),
        ("config.json", b"{", "config.json: is not JSON"),
        ("config.json", b"[]", "config.json: is not a JSON object"),
        ("tokenizer.json", b"\xff", "tokenizer.json: is not JSON"),
    ],
)
@pytest.mark.parametrize("policy", PicklePolicy)
def test_what_is_not_what_it_says_is_refused(path: str, content: bytes, words: str, policy: PicklePolicy) -> None:
    deployment, task = import_files(MODEL | {path: content}, policy)
    assert task.error is not None
    assert task.error.type == "invalid-model"
    assert words in task.error.detail
    assert [key for key in deployment.store.keys if not key.startswith("staging/")] == []


def test_a_model_of_the_hub_may_lack_shards_of_an_index() -> None:
    index = json.dumps({"weight_map": {"a": "missing.safetensors"}}).encode()
    _, task = import_files(MODEL | {"model.safetensors.index.json": index})
    assert task.status is TaskStatus.DONE


def test_all_models_of_an_archive_are_looked_at() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for directory, files in (("a", MODEL), ("b", MODEL | {"optimizer.pt": SYSTEM})):
            for path, content in files.items():
                archive.writestr(f"{directory}/{path}", content)
    deployment = Deployment()
    task = deployment.post(body.getvalue())
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.detail.startswith("optimizer.pt: imports os.system")
    assert [key for key in deployment.store.keys if key.startswith(("models/", "staging/"))] == []


def test_a_header_of_a_large_file_is_all_that_is_read() -> None:
    header = struct.pack("<Q", 2**40)
    _, task = import_files(MODEL | {"model.safetensors": header + bytes(100)})
    assert task.error is not None
    assert "header" in task.error.detail
