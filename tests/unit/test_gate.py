"""What may be published, over the whole pipeline: nothing that could run, nothing that is not what it says."""

import bz2
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import pytest

from modelhaul.model import GateVerdict, PickleOpinion, PicklePolicy, SecondOpinion
from modelhaul.task import Task, TaskStatus
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.pickle_scanner import InMemoryPickleScanner
from tests.unit.test_pickles import PLAIN, SYSTEM, assemble, build_array, build_legacy, build_torch_zip, zip_files
from tests.weights import wrap_weights

NAME = "org/model"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}


def import_files(
    files: dict[str, bytes],
    policy: PicklePolicy = PicklePolicy.BLOCK,
    scanner: InMemoryPickleScanner | None = None,
    seconds: float = 300.0,
) -> tuple[Deployment, Task]:
    deployment = Deployment(
        InMemoryModelSource({NAME: {"main": files}}),
        pickle_policy=policy,
        pickle_scanner=scanner or InMemoryPickleScanner(),
        remaining=lambda: seconds,
    )
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


RENAMED = {
    "weights": SYSTEM,
    "sub/model.xyz": build_torch_zip(SYSTEM),
    "a.pdparams": SYSTEM,
    "a.pk": assemble("os", "system", form="text"),
    "a.sav": SYSTEM,
    "a.cloudpickle": SYSTEM,
    "a.distcp": build_torch_zip(PLAIN) * 2,
    "a.mar": zip_files({"model.pt": build_torch_zip(SYSTEM)}, zipfile.ZIP_DEFLATED),
    "a.zip": zip_files({"policy.pth": build_torch_zip(SYSTEM)}),
    "a.npz": zip_files({"data/0": build_array("'|O'", SYSTEM), "data.pkl": PLAIN}),
    "a.pkl.gz": gzip.compress(PLAIN),
    "a.zlib": zlib.compress(SYSTEM),
}


@pytest.mark.parametrize("path", RENAMED)
def test_pickles_are_found_whatever_they_are_called(path: str) -> None:
    deployment, task = import_files(MODEL | {path: RENAMED[path]})
    assert task.error is not None
    assert (task.error.type, task.error.detail.partition(": ")[0]) == ("unsafe-model", path)
    assert deployment.store.keys == []


def test_what_cannot_be_looked_into_is_said() -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt"), io.BytesIO())
    tar = body.getvalue()
    files = {"a.nemo": tar, "b.zip": zip_files({"inner.tar": tar}), "c": gzip.compress(tar), "README": b"text"}
    deployment, task = import_files(MODEL | files)
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.verdict is GateVerdict.UNSCANNED
    assert sorted(model.gate.flags) == [
        "not-scanned: a.nemo: cannot be looked into",
        "not-scanned: b.zip: inner.tar",
        "not-scanned: c: cannot be looked into",
    ]
    assert read_manifest(deployment, task)["gate"]["verdict"] == "unscanned"


def test_files_of_unknown_kinds_are_looked_at_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhaul.inspection.gate._MOST_UNKNOWN", 3)
    deployment, task = import_files(MODEL | {f"{number}.xyz": b"text" for number in range(5)})
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.flags) == (
        GateVerdict.UNSCANNED,
        ("not-scanned: 2 of 5 files of unknown kinds",),
    )


def test_what_its_name_tells_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def spy(store: InMemoryObjectStore, key: str, start: int, end: int) -> bytes:
        read.append(key.rpartition("/")[2])
        return original(store, key, start, end)

    original = InMemoryObjectStore.read
    monkeypatch.setattr(InMemoryObjectStore, "read", spy)
    names = ["a.txt", "a.json", "a.py", "README.md", ".gitattributes", "LICENSE", "a.gguf", "a.onnx", "a.PNG"]
    _, task = import_files(MODEL | dict.fromkeys([*names, "a.xyz"], b"text"))
    assert task.status is TaskStatus.DONE
    assert sorted(set(read)) == ["a.xyz", "config.json", "model.safetensors", "tokenizer.json"]
    assert read.count("a.xyz") == 1


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


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        (
            {"a": "gone-1.bin", "b": "gone-2.bin", "c": "here.bin"},
            "2 of its shards are missing: 'gone-1.bin, gone-2.bin'",
        ),
        ([], "has no weight_map of names"),
    ],
)
def test_shards_that_a_model_of_the_hub_lacks_are_said(index: object, wrong: str) -> None:
    files = {"sub/pytorch_model.bin.index.json": json.dumps({"weight_map": index}).encode(), "sub/here.bin": PLAIN}
    deployment, task = import_files(MODEL | files)
    assert task.status is TaskStatus.DONE, "the Hub's models are taken as they are"
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.flags == (f"incomplete: sub/pytorch_model.bin.index.json: {wrong}",)
    assert read_manifest(deployment, task)["gate"]["flags"] == list(model.gate.flags)


def test_a_complete_index_is_not_flagged() -> None:
    index = json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()
    deployment, task = import_files(MODEL | {"model.safetensors.index.json": index})
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.flags == ()


def test_the_manifest_has_all_that_a_record_has_no_room_for() -> None:
    pickles = {f"{number:03}.bin": PLAIN for number in range(150)}
    code = {f"{number:03}.py": b"" for number in range(150)}
    shards = [f"{number:03}.safetensors" for number in range(150)]
    index = json.dumps({"weight_map": {shard: shard for shard in shards}}).encode()
    deployment, task = import_files(MODEL | pickles | code | {"a.safetensors.index.json": index})
    shown = read_manifest(deployment, task)["gate"]
    assert [entry["path"] for entry in shown["scanned"]] == list(pickles)
    assert shown["flags"][1:] == [f"code: {path}" for path in code]
    assert all(shard in shown["flags"][0] for shard in shards)
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert [path for path, _ in model.gate.scanned] == list(pickles)[:100]
    assert len(model.gate.flags) == 100
    assert model.gate.flags[0].startswith("incomplete: a.safetensors.index.json: 150 of its shards are missing: '000.")
    assert len(model.gate.flags[0]) == 301


def read_opinion(deployment: Deployment, task: Task) -> tuple[SecondOpinion | None, str | None]:
    """Of the model's record, and of its manifest."""
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    return model.gate.second_opinion, read_manifest(deployment, task)["gate"]["second_opinion"]


@pytest.mark.parametrize("opinion", [SecondOpinion.CLEAN, SecondOpinion.UNVERIFIED])
def test_another_scanner_is_asked_and_its_doubts_are_recorded(opinion: SecondOpinion) -> None:
    scanner = InMemoryPickleScanner(opinions={PLAIN: PickleOpinion(opinion)})
    files = {"a.bin": build_torch_zip(PLAIN), "b.npy": build_array("'|O'", PLAIN), "c.bin": bytes(100)}
    deployment, task = import_files(MODEL | files, scanner=scanner)
    assert task.status is TaskStatus.DONE
    assert read_opinion(deployment, task) == (opinion, opinion.value)
    assert scanner.asked == [([PLAIN, PLAIN], 60.0)], "once for all, and only of the pickles themselves"


def test_one_doubt_is_a_doubt_about_the_model() -> None:
    legacy = build_legacy(PLAIN)
    scanner = InMemoryPickleScanner(opinions={PLAIN: PickleOpinion(SecondOpinion.UNVERIFIED)})
    deployment, task = import_files(MODEL | {"a.bin": PLAIN, "b.bin": legacy}, scanner=scanner)
    assert read_opinion(deployment, task) == (SecondOpinion.UNVERIFIED, "unverified")
    assert scanner.asked[0][0] == [PLAIN, legacy.removesuffix(bytes(range(256)))], "without the storages"


FOUND = PickleOpinion(SecondOpinion.MALICIOUS, ("Found REDUCE opcode invoking dangerous global: os.system",))


def test_what_another_scanner_finds_malicious_is_removed_and_named() -> None:
    deployment, task = import_files(MODEL | {"a.bin": PLAIN}, scanner=InMemoryPickleScanner(opinions={PLAIN: FOUND}))
    assert task.error is not None
    assert task.error.type == "unsafe-model"
    assert task.error.detail.startswith("a.bin: Found REDUCE opcode invoking dangerous global: os.system")
    assert deployment.store.keys == []


def test_with_a_warning_what_another_scanner_finds_is_said() -> None:
    scanner = InMemoryPickleScanner(SecondOpinion.UNVERIFIED, {PLAIN: FOUND})
    files = {"a.bin": SYSTEM, "b.bin": PLAIN}
    deployment, task = import_files(MODEL | files, PicklePolicy.WARN, scanner)
    (model,) = deployment.ledger.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.verdict is GateVerdict.UNSAFE
    assert model.gate.reasons == ("a.bin: imports os.system", f"b.bin: {FOUND.reasons[0]}")
    assert read_opinion(deployment, task) == (SecondOpinion.MALICIOUS, "malicious")


def test_a_clean_opinion_does_not_pass_what_ours_refuses() -> None:
    scanner = InMemoryPickleScanner(SecondOpinion.CLEAN)
    _, task = import_files(MODEL | {"a.bin": SYSTEM}, scanner=scanner)
    assert task.status is TaskStatus.FAILED
    assert scanner.asked == []


@pytest.mark.parametrize(
    ("files", "policy", "seconds", "opinion"),
    [
        ({}, PicklePolicy.BLOCK, 300.0, None),
        ({"a.bin": PLAIN}, PicklePolicy.OFF, 300.0, None),
        ({"a.bin": PLAIN}, PicklePolicy.BLOCK, 240.0, SecondOpinion.UNVERIFIED),
        ({"a.bin": pickle.dumps(bytes(4_200_000))}, PicklePolicy.BLOCK, 300.0, SecondOpinion.UNVERIFIED),
        ({"a.bin": bz2.compress(PLAIN)}, PicklePolicy.WARN, 300.0, SecondOpinion.UNVERIFIED),
    ],
    ids=["no pickle", "switched off", "no time", "too large", "cannot be looked through"],
)
def test_nobody_is_asked_where_there_is_nothing_to_show_or_no_time(
    files: dict[str, bytes], policy: PicklePolicy, seconds: float, opinion: SecondOpinion | None
) -> None:
    scanner = InMemoryPickleScanner()
    deployment, task = import_files(MODEL | files, policy, scanner, seconds)
    assert read_opinion(deployment, task) == (opinion, opinion)
    assert scanner.asked == []


def test_all_that_is_shown_of_a_model_is_bounded() -> None:
    scanner = InMemoryPickleScanner()
    files = {f"{number}.bin": pickle.dumps(bytes([number]) * 4_000_000) for number in range(6)}
    deployment, task = import_files(MODEL | files, scanner=scanner)
    assert read_opinion(deployment, task) == (SecondOpinion.UNVERIFIED, "unverified")
    assert scanner.asked == [(list(files.values())[:4], 60.0)]


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
