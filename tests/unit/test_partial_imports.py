"""Parts of a model through the whole pipeline: what arrives, under which identity, and what is refused."""

import json
import random
from dataclasses import asdict
from typing import Any

import pytest

from modelhaul.catalog.presentation import present_model, present_whole_task
from modelhaul.domain.errors import ImportInProgressError, ModelExistsError
from modelhaul.domain.files import MAX_FILE_SIZE, SourceFile
from modelhaul.domain.models import Source
from modelhaul.domain.selection import WHOLE, Selection, Weights
from modelhaul.domain.tasks import Task, TaskStatus
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.pickles import PLAIN, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
PYTORCH = build_torch_zip(PLAIN)
SAFETENSORS = wrap_weights(random.Random("part").randbytes(9 * 1024 * 1024))
FILES = {
    "config.json": b"{}",
    "model.safetensors": SAFETENSORS,
    "onnx/model.onnx": b"onnx",
    "pytorch_model.bin": PYTORCH,
    "tokenizer.json": b'{"version": "1.0"}',
}
ONLY_SAFETENSORS = Selection((), ("onnx/",), Weights.SAFETENSORS)
TAKEN = ["config.json", "model.safetensors", "tokenizer.json"]
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
SHARDED = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode(),
    SHARDS[0]: wrap_weights(b"a" * 1000),
    SHARDS[1]: wrap_weights(b"b" * 1000),
}


def make_deployment(files: dict[str, bytes], kind: Source = Source.HUGGINGFACE) -> Deployment:
    return Deployment(InMemoryModelSource({NAME: {"main": dict(files)}}, kind=kind))


def import_part(deployment: Deployment, selection: Selection) -> Task:
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.bytes_read.clear()
    task = deployment.submit(NAME, source=source.kind, selection=selection)
    deployment.run()
    return deployment.find_task(task.id)


def read_manifest(deployment: Deployment, task: Task) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(deployment.read(f"manifests/{task.model_ids[0]}.json"))
    return manifest


def count_read(deployment: Deployment) -> int:
    assert isinstance(deployment.source, InMemoryModelSource)
    return deployment.source.bytes_read.total()


def check_refused(task: Task, kind: str, words: str) -> None:
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.type == kind
    assert words in task.error.detail


@pytest.mark.parametrize("order", [(ONLY_SAFETENSORS, WHOLE), (WHOLE, ONLY_SAFETENSORS)], ids=["part", "whole"])
def test_a_part_and_the_whole_lie_side_by_side_and_move_nothing_twice(order: tuple[Selection, Selection]) -> None:
    deployment = make_deployment(FILES)
    paths = {WHOLE: sorted(FILES), ONLY_SAFETENSORS: TAKEN}
    first, second = order
    tasks = {first: import_part(deployment, first)}
    moved = set(paths[first])
    assert count_read(deployment) == sum(len(FILES[path]) for path in moved)
    tasks[second] = import_part(deployment, second)
    assert count_read(deployment) == sum(len(FILES[path]) for path in set(paths[second]) - moved)
    expected = {}
    for selection, task in tasks.items():
        assert task.status is TaskStatus.DONE, task.error
        assert task.progress.files_total == len(paths[selection])
        model = deployment.find_model(task)
        assert model.files == len(paths[selection])
        expected[model.resolved.prefix] = {path: FILES[path] for path in paths[selection]}
        assert [entry["path"] for entry in read_manifest(deployment, task)["files"]] == paths[selection]
    assert len(expected) == 2
    deployment.check_promises(expected)


def test_a_part_says_that_it_is_one() -> None:
    deployment = make_deployment(FILES)
    part, whole = (import_part(deployment, selection) for selection in (ONLY_SAFETENSORS, WHOLE))
    shown = {"allow_patterns": [], "ignore_patterns": ["onnx/*"], "weights": "safetensors"}
    model = deployment.find_model(part)
    assert model.resolved.selection == ONLY_SAFETENSORS
    assert f"-partial-{model.model_id}/" in model.resolved.prefix
    assert read_manifest(deployment, part)["selection"] == shown
    assert present_model(model, bucket="b")["selection"] == {**asdict(ONLY_SAFETENSORS)}
    assert json.loads(json.dumps(present_whole_task(part, [model], bucket="b")))["selection"] == shown
    model = deployment.find_model(whole)
    assert "selection" not in read_manifest(deployment, whole)
    assert "selection" not in present_model(model, bucket="b")
    assert "selection" not in present_whole_task(whole, [model], bucket="b")


def test_a_conflict_says_which_part_is_meant() -> None:
    deployment = make_deployment(FILES)
    deployment.submit(NAME)
    task = deployment.submit(NAME, selection=ONLY_SAFETENSORS)
    words = "(ignore 'onnx/*', weights safetensors)"
    with pytest.raises(ImportInProgressError) as running:
        deployment.submit(NAME, selection=Selection((), ("onnx/*",), Weights.SAFETENSORS))
    assert running.value.task_id == task.id
    assert words in running.value.detail
    deployment.run()
    with pytest.raises(ModelExistsError) as exists:
        deployment.submit(NAME, selection=ONLY_SAFETENSORS)
    assert words in exists.value.detail
    with pytest.raises(ModelExistsError) as exists:
        deployment.submit(NAME)
    assert "weights" not in exists.value.detail


def test_a_selection_that_is_the_default_is_the_whole_model() -> None:
    deployment = make_deployment(FILES)
    import_part(deployment, WHOLE)
    with pytest.raises(ModelExistsError):
        deployment.submit(NAME, selection=Selection((), (), Weights.ALL))


@pytest.mark.parametrize(
    ("selection", "kind", "words"),
    [
        (Selection(("*.gguf",)), "empty-model", "No file matches the allow patterns '*.gguf' of org/model"),
        (Selection(("*.bin",), (), Weights.SAFETENSORS), "required-files-missing", "no safetensors weights"),
    ],
)
def test_what_cannot_be_is_refused_before_a_byte_moves(selection: Selection, kind: str, words: str) -> None:
    deployment = make_deployment(FILES)
    task = import_part(deployment, selection)
    check_refused(task, kind, words)
    assert count_read(deployment) == 0
    deployment.check_promises({})


def test_what_is_left_out_may_be_what_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = make_deployment(FILES)
    list_files = deployment.source.list_files

    def list_more(*args: Any) -> Any:
        for file in list_files(*args):
            yield file
            if file.path == "config.json":
                yield SourceFile("huge/one.gguf", MAX_FILE_SIZE + 1, file.digest)
                yield SourceFile(f"huge/{'x' * 1100}", 1, file.digest)

    monkeypatch.setattr(deployment.source, "list_files", list_more)
    check_refused(import_part(deployment, WHOLE), "file-too-large", "huge/one.gguf")
    assert import_part(deployment, Selection((), ("huge/",))).status is TaskStatus.DONE


def test_the_required_files_are_the_repositorys_and_not_the_parts() -> None:
    deployment = make_deployment(FILES, Source.GITHUB)
    part = import_part(deployment, Selection(("*.onnx", "config.json")))
    assert part.status is TaskStatus.DONE, part.error
    assert [f["path"] for f in read_manifest(deployment, part)["files"]] == ["config.json", "onnx/model.onnx"]
    deployment = make_deployment({"README.md": b"", "config.json": b"{}"}, Source.GITHUB)
    check_refused(import_part(deployment, Selection(("*.json",))), "required-files-missing", "tokenizer.json")


def test_shards_that_are_left_out_are_not_missed_but_recorded() -> None:
    deployment = make_deployment(SHARDED, Source.GITHUB)
    part = import_part(deployment, Selection((), (SHARDS[1],)))
    assert part.status is TaskStatus.DONE, part.error
    (flag,) = read_manifest(deployment, part)["gate"]["flags"]
    assert flag == f"incomplete: model.safetensors.index.json: 1 of its shards are missing: '{SHARDS[1]}'"
    assert deployment.find_model(part).gate is not None
    whole = import_part(deployment, WHOLE)
    assert read_manifest(deployment, whole)["gate"]["flags"] == []


@pytest.mark.parametrize("selection", [WHOLE, Selection((), ("*.md",))])
def test_shards_that_a_repository_lacks_are_missed_in_a_part_as_well(selection: Selection) -> None:
    index = json.dumps({"weight_map": {"a": "gone.bin"}}).encode()
    deployment = make_deployment(SHARDED | {"pytorch_model.bin.index.json": index, "a.md": b""}, Source.GITHUB)
    task = import_part(deployment, selection)
    check_refused(task, "invalid-model", "pytorch_model.bin.index.json: 1 of its shards are missing: 'gone.bin'")


def test_a_part_of_a_hubs_model_says_what_is_incomplete() -> None:
    deployment = make_deployment(SHARDED)
    part = import_part(deployment, Selection(("*.json", SHARDS[0])))
    assert part.status is TaskStatus.DONE
    (flag,) = read_manifest(deployment, part)["gate"]["flags"]
    assert flag.startswith("incomplete: model.safetensors.index.json")


def test_a_part_that_failed_leaves_the_whole_alone() -> None:
    deployment = make_deployment(FILES)
    whole = deployment.find_model(import_part(deployment, WHOLE)).resolved
    task = deployment.submit(NAME, selection=ONLY_SAFETENSORS)
    part = deployment.find_model(task).resolved
    copy = deployment.store.copy

    def cancel(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied = copy(source_key, key, size=size, etag=etag)
        if key.startswith(part.prefix) and deployment.find_task(task.id).status is TaskStatus.PENDING:
            deployment.finisher.cancel(task.id)
        return copied

    deployment.store.copy = cancel  # type: ignore[method-assign]
    deployment.run()
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.FAILED
    deployment.check_promises({whole.prefix: FILES})
