"""The gate in the whole pipeline: files that can run code, or that contradict their names, are not published."""

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

from modelhaul.domain.gate import GateReport, GateVerdict, PickleOpinion, PicklePolicy, SecondOpinion
from modelhaul.domain.models import ModelStatus
from modelhaul.domain.tasks import Task, TaskStatus
from tests.archives.zipping import zip_files
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.pickle_scanner import InMemoryPickleScanner
from tests.pickles import PLAIN, SYSTEM, assemble, build_array, build_legacy, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}


def import_files(
    files: dict[str, bytes],
    policy: PicklePolicy = PicklePolicy.BLOCK,
    scanner: InMemoryPickleScanner | None = None,
) -> tuple[Deployment, Task]:
    deployment = Deployment(
        InMemoryModelSource({NAME: {"main": files}}),
        pickle_policy=policy,
        pickle_scanner=scanner or InMemoryPickleScanner(),
    )
    task = deployment.submit(NAME)
    deployment.run()
    return deployment, deployment.find_task(task.id)


def read_manifest(deployment: Deployment, task: Task) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(deployment.read(f"manifests/{task.model_ids[0]}.json"))
    return manifest


def test_unsafe_pickle_fails_the_import_and_is_removed() -> None:
    deployment, task = import_files(MODEL | {"pytorch_model.bin": build_torch_zip(SYSTEM)})
    assert task.error is not None
    assert (task.status, task.error.type, task.error.retryable) == (TaskStatus.FAILED, "unsafe-model", False)
    assert "could run code: pytorch_model.bin: model/data.pkl: Pickle imports os.system" in task.error.detail
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
    "a.pkl.gz": gzip.compress(SYSTEM),
    "a.zlib": zlib.compress(SYSTEM),
}


@pytest.mark.parametrize("path", RENAMED)
def test_renamed_pickles_are_found(path: str) -> None:
    deployment, task = import_files(MODEL | {path: RENAMED[path]})
    assert task.error is not None
    assert (task.error.type, task.error.detail.split(": ")[1]) == ("unsafe-model", path)
    assert deployment.store.keys == []


def build_tar() -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt"), io.BytesIO())
    return body.getvalue()


def read_gate(deployment: Deployment, task: Task) -> GateReport:
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None, model.error
    return model.gate


def test_unparsed_files_are_published_and_reported() -> None:
    tar = build_tar()
    files = {"a.nemo": tar, "b.zip": zip_files({"inner.tar": tar}), "c": gzip.compress(tar), "README": b"text"}
    deployment, task = import_files(MODEL | files)
    gate = read_gate(deployment, task)
    assert gate.verdict is GateVerdict.UNSCANNED
    assert gate.flags == (
        "code-archive: a.nemo",
        "not-scanned: a.nemo: Unsupported: tar archive",
        "not-scanned: b.zip: inner.tar: Unsupported: tar archive",
        "not-scanned: c: Unsupported: tar archive",
    )
    assert read_manifest(deployment, task)["gate"]["verdict"] == "unscanned"


def test_inspection_of_every_file_is_recorded() -> None:
    files = {"modeling.py": b"print()", "pytorch_model.bin": build_torch_zip(PLAIN), "logo.png": b"\x89PNG\r\n\x1a\n"}
    deployment, task = import_files(MODEL | files)
    inspections = {file["path"]: file["inspection"] for file in read_manifest(deployment, task)["files"]}
    assert inspections == {
        "config.json": {"format": "json", "verdict": "clean"},
        "logo.png": {"format": "unknown", "verdict": "unscanned", "reason": "Unsupported: PNG image"},
        "model.safetensors": {"format": "safetensors", "verdict": "clean"},
        "modeling.py": {
            "format": "text",
            "verdict": "unscanned",
            "findings": [
                {
                    "kind": "code",
                    "severity": "medium",
                    "detail": "Python source: loaders run it with trust_remote_code=True",
                }
            ],
        },
        "pytorch_model.bin": {"format": "torch-zip", "verdict": "clean"},
        "tokenizer.json": {"format": "json", "verdict": "clean"},
    }
    recorded = read_gate(deployment, task).files
    assert [file.path for file in recorded][:2] == ["logo.png", "modeling.py"], "first those that are not clean"
    assert len(recorded) == len(inspections)


NAMING: dict[str, Any] = {
    "pytorch_model.bin.index.json": {"weight_map": {"a": "FILE"}},
    "adapter_model.bin.index.json": {"weight_map": {"a": "./FILE"}},
    "diffusion_pytorch_model.bin.index.fp16.json": {"metadata": {}, "weight_map": {"a": "FILE"}},
    "model.safetensors.index.json": {"weight_map": {"a": "FILE"}},
    "modules.json": [{"idx": 0, "name": "0", "path": "FILE", "type": "sentence_transformers.models.Transformer"}],
    "adapter_config.json": {"peft_type": "LORA", "weights": "FILE"},
    "model_index.json": {"_class_name": "Pipeline", "unet": ["diffusers", "FILE"]},
}


@pytest.mark.parametrize("named", ["vocab.txt", "notes.md", "vocab.json", "a.gguf", "a.onnx", "LICENSE", "a.h5"])
@pytest.mark.parametrize("index", NAMING)
@pytest.mark.parametrize("folder", ["", "sub/"])
def test_files_that_an_index_names_must_be_weights(folder: str, index: str, named: str) -> None:
    naming = json.dumps(NAMING[index]).replace("FILE", named).encode()
    files = {f"{folder}{index}": naming, f"{folder}{named}": assemble("os", "system", form="text")}
    _, task = import_files(MODEL | files)
    assert task.error is not None
    assert task.error.type == "unsafe-model"
    assert f"{folder}{named}: Pickle imports os.system" in task.error.detail
    _, task = import_files(MODEL | files | {f"{folder}{named}": b"plain text\n"})
    assert task.error is not None
    assert f"referenced by {folder}{index}," in task.error.detail


def test_files_that_an_index_names_may_be_clean_pickles_of_any_name() -> None:
    index = json.dumps({"weight_map": {"a": "shard.txt"}}).encode()
    _, task = import_files(MODEL | {"pytorch_model.bin.index.json": index, "shard.txt": build_torch_zip(PLAIN)})
    assert task.status is TaskStatus.DONE, task.error


@pytest.mark.parametrize("content", [b"{", b"[" * 20_000 + b"]" * 20_000, b'{"weight_map": {"a": "\xff"}}'])
@pytest.mark.parametrize("index", NAMING)
def test_unreadable_index_is_refused(index: str, content: bytes) -> None:
    _, task = import_files(MODEL | {index: content})
    assert task.error is not None
    assert task.error.type == "invalid-model"
    assert task.error.detail.startswith(f"{index}: ")


@pytest.mark.parametrize(
    "path", ["a.pt", "a.ckpt", "a.pkl", "a.npz", "a.joblib", "a.npy", "pytorch_model.bin", "a.dill"]
)
@pytest.mark.parametrize("content", [b"\xff" * 100, b"plain text", build_tar(), b"\x28\xb5\x2f\xfd" + bytes(100)])
def test_files_with_pickle_names_must_be_clean(path: str, content: bytes) -> None:
    _, task = import_files(MODEL | {path: content})
    assert task.error is not None
    assert (task.error.type, task.error.detail.split(": ")[1]) == ("unsafe-model", path)
    deployment, task = import_files(MODEL | {path: content}, PicklePolicy.WARN)
    assert read_gate(deployment, task).verdict is GateVerdict.UNSCANNED


def test_raw_weights_of_other_programs_are_published_as_unscanned() -> None:
    deployment, task = import_files(MODEL | {"openvino/openvino_model.bin": b"\xff\x00" * 100})
    gate = read_gate(deployment, task)
    assert gate.verdict is GateVerdict.UNSCANNED
    assert gate.flags == ("not-scanned: openvino/openvino_model.bin: Unknown format",)


def test_empty_openvino_weights_are_allowed() -> None:
    files = {"openvino_tokenizer.bin": b"", "openvino_tokenizer.xml": b"<net/>"}
    _, task = import_files(MODEL | files)
    assert task.status is TaskStatus.DONE, task.error


TRAINING = {
    "training_args.bin": SYSTEM,
    "checkpoint-5/optimizer.pt": b"\xff" * 10,
    "scaler.pt": b"",
    "rng_state_0.pth": build_torch_zip(SYSTEM),
}


def test_training_state_with_findings_is_left_out() -> None:
    source = MODEL | TRAINING | {"scheduler.pt": build_torch_zip(PLAIN)}
    deployment, task = import_files(source)
    assert task.status is TaskStatus.DONE, task.error
    gate = read_gate(deployment, task)
    assert gate.left_out == tuple(sorted(TRAINING))
    assert gate.verdict is GateVerdict.CLEAN
    assert "left-out: training_args.bin: Pickle imports os.system" in gate.flags
    manifest = read_manifest(deployment, task)
    assert manifest["gate"]["left_out"] == sorted(TRAINING)
    assert [file["path"] for file in manifest["files"]] == sorted({*MODEL, "scheduler.pt"})
    published = [key for key in deployment.store.keys if key.startswith("models/")]
    assert sorted(key.rpartition("/")[2] for key in published) == sorted({*MODEL, "scheduler.pt"})
    assert [key for key in deployment.store.keys if key.startswith("staging/")] == []
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.files == len(MODEL) + 1


def test_training_state_that_an_index_names_is_refused() -> None:
    index = json.dumps({"weight_map": {"a": "training_args.bin"}}).encode()
    _, task = import_files(MODEL | TRAINING | {"pytorch_model.bin.index.json": index})
    assert task.error is not None
    assert task.error.detail.startswith("Loading the model could run code: training_args.bin: Pickle imports os.system")


def test_policy_warn_publishes_training_state() -> None:
    deployment, task = import_files(MODEL | TRAINING, PicklePolicy.WARN)
    gate = read_gate(deployment, task)
    assert (gate.left_out, gate.verdict) == ((), GateVerdict.UNSAFE)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("policy", PicklePolicy)
@pytest.mark.parametrize(
    "path", ["pytorch_model.bin", "a.pt", "a.gguf", "a.onnx", "a.h5", "a.npz", "model.bin", "a.safetensors"]
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "git lfs pull"),
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b'{"error": "Repository not found"}', "JSON error"),
    ],
)
def test_placeholders_for_weights_are_refused(path: str, content: bytes, words: str, policy: PicklePolicy) -> None:
    deployment, task = import_files(MODEL | {path: content}, policy)
    assert task.error is not None
    assert (task.error.type, task.error.detail.partition(": ")[0]) == ("invalid-model", path)
    assert words in task.error.detail
    assert deployment.store.keys == [], "neither visible nor staged"


def test_removed_files_are_not_reused() -> None:
    source = InMemoryModelSource({NAME: {"main": MODEL | {"a.bin": SYSTEM}}, "org/other": {"main": MODEL}})
    deployment = Deployment(source)
    deployment.submit(NAME)
    deployment.run()
    other = deployment.submit("org/other")
    deployment.run()
    assert deployment.find_task(other.id).status is TaskStatus.DONE
    assert deployment.read(source.prefix("org/other") + "model.safetensors") == MODEL["model.safetensors"]


def test_policy_warn_publishes_and_reports_unsafe_files() -> None:
    deployment, task = import_files(MODEL | {"a.bin": SYSTEM, "b.bin": PLAIN}, PicklePolicy.WARN)
    assert task.status is TaskStatus.DONE
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.reasons) == (GateVerdict.UNSAFE, ("a.bin: Pickle imports os.system",))
    shown = read_manifest(deployment, task)
    assert shown["gate"]["verdict"] == "unsafe"
    assert shown["gate"]["reasons"] == ["a.bin: Pickle imports os.system"]
    digests = {entry["path"]: entry["sha256"] for entry in shown["files"]}
    assert shown["gate"]["scanned"] == [{"path": path, "sha256": digests[path]} for path in ("a.bin", "b.bin")]


def test_policy_off_inspects_nothing() -> None:
    deployment, task = import_files(MODEL | {"a.bin": SYSTEM}, PicklePolicy.OFF)
    assert task.status is TaskStatus.DONE
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.scanned) == (GateVerdict.UNSCANNED, ())


def test_model_of_formats_without_code_is_clean() -> None:
    more = {
        "pytorch_model.bin": build_torch_zip(PLAIN),
        "README.md": b"# Model",
        ".gitattributes": b"*.bin filter=lfs\n",
        "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "chat_template.jinja": b"{{ messages }}",
    }
    deployment, task = import_files(MODEL | more)
    assert task.status is TaskStatus.DONE, task.error
    gate = read_gate(deployment, task)
    assert gate.verdict is GateVerdict.CLEAN, gate.flags
    assert gate.flags == (
        "chat-template: chat_template.jinja",
        "auto-map: config.json",
        "chat-template: tokenizer_config.json",
    )
    assert [path for path, _ in gate.scanned] == ["pytorch_model.bin"]


@pytest.mark.parametrize(
    ("path", "content", "flag"),
    [
        ("modeling.py", b"print()", "code: modeling.py"),
        ("old.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "keras: old.h5"),
        ("run.sh", b"#!/bin/sh\necho\n", "code: run.sh"),
        ("tool", b"\x7fELF\x02\x01\x01" + bytes(100), "native-library: tool"),
    ],
)
def test_programs_are_reported_and_not_clean(path: str, content: bytes, flag: str) -> None:
    deployment, task = import_files(MODEL | {path: content})
    gate = read_gate(deployment, task)
    assert gate.verdict is GateVerdict.UNSCANNED
    assert flag in gate.flags


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("model.safetensors", b"some other bytes than weights", "model.safetensors: "),
        ("sub/x.safetensors", wrap_weights(bytes(100))[:-1], "sub/x.safetensors: Gap or overlap at byte 99"),
        ("config.json", b"{", "config.json: File cannot be parsed as JSON"),
        ("config.json", b"[]", "config.json: File is not a JSON object"),
        ("tokenizer.json", b"\xff", "tokenizer.json: File cannot be parsed as JSON"),
    ],
)
@pytest.mark.parametrize("policy", PicklePolicy)
def test_content_must_match_its_name(path: str, content: bytes, words: str, policy: PicklePolicy) -> None:
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
            "2 of its shards are missing: 'gone-1.bin', 'gone-2.bin'",
        ),
        ([], "File has no weight_map of file names"),
    ],
)
def test_missing_shards_on_the_hub_are_flagged(index: object, wrong: str) -> None:
    files = {"sub/pytorch_model.bin.index.json": json.dumps({"weight_map": index}).encode(), "sub/here.bin": PLAIN}
    deployment, task = import_files(MODEL | files)
    assert task.status is TaskStatus.DONE, "the Hub's models are taken as they are"
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.flags == (f"incomplete: sub/pytorch_model.bin.index.json: {wrong}",)
    assert read_manifest(deployment, task)["gate"]["flags"] == list(model.gate.flags)


def test_complete_index_is_not_flagged() -> None:
    index = json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()
    deployment, task = import_files(MODEL | {"model.safetensors.index.json": index})
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.flags == ()


def test_manifest_has_the_full_report() -> None:
    pickles = {f"{number:03}.bin": PLAIN for number in range(150)}
    code = {f"{number:03}.py": b"" for number in range(150)}
    shards = [f"{number:03}.safetensors" for number in range(150)]
    index = json.dumps({"weight_map": {shard: shard for shard in shards}}).encode()
    deployment, task = import_files(MODEL | pickles | code | {"a.safetensors.index.json": index})
    shown = read_manifest(deployment, task)["gate"]
    assert [entry["path"] for entry in shown["scanned"]] == list(pickles)
    assert shown["flags"][1:] == [f"code: {path}" for path in code]
    assert all(shard in shown["flags"][0] for shard in shards)
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert [path for path, _ in model.gate.scanned] == list(pickles)[:100]
    assert len(model.gate.flags) == 100
    assert model.gate.flags[0].startswith("incomplete: a.safetensors.index.json: 150 of its shards are missing: '000.")
    assert len(model.gate.flags[0]) == 301


def read_opinion(deployment: Deployment, task: Task) -> tuple[SecondOpinion | None, str | None]:
    """Return the opinions in the model's record and in its manifest."""
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    return model.gate.second_opinion, read_manifest(deployment, task)["gate"]["second_opinion"]


@pytest.mark.parametrize("opinion", [SecondOpinion.CLEAN, SecondOpinion.UNVERIFIED])
def test_second_opinion_is_recorded(opinion: SecondOpinion) -> None:
    scanner = InMemoryPickleScanner(opinions={PLAIN: PickleOpinion(opinion)})
    files = {"a.bin": build_torch_zip(PLAIN), "b.npy": build_array("'|O'", PLAIN), "c.bin": bytes(100)}
    deployment, task = import_files(MODEL | files, scanner=scanner)
    assert task.status is TaskStatus.DONE
    assert read_opinion(deployment, task) == (opinion, opinion.value)
    assert scanner.asked == [([PLAIN, PLAIN], 60.0)], "once for all, and only of the pickles themselves"


def test_one_unverified_pickle_makes_the_model_unverified() -> None:
    legacy = build_legacy(PLAIN)
    scanner = InMemoryPickleScanner(opinions={PLAIN: PickleOpinion(SecondOpinion.UNVERIFIED)})
    deployment, task = import_files(MODEL | {"a.bin": PLAIN, "b.bin": legacy}, scanner=scanner)
    assert read_opinion(deployment, task) == (SecondOpinion.UNVERIFIED, "unverified")
    assert scanner.asked[0][0] == [PLAIN, legacy.removesuffix(bytes(range(256)))], "without the storages"


FOUND = PickleOpinion(SecondOpinion.MALICIOUS, ("Found REDUCE opcode invoking dangerous global: os.system",))


def test_malicious_opinion_fails_the_import() -> None:
    deployment, task = import_files(MODEL | {"a.bin": PLAIN}, scanner=InMemoryPickleScanner(opinions={PLAIN: FOUND}))
    assert task.error is not None
    assert task.error.type == "unsafe-model"
    assert "a.bin: Found REDUCE opcode invoking dangerous global: os.system" in task.error.detail
    assert deployment.store.keys == []


def test_policy_warn_reports_malicious_opinions() -> None:
    scanner = InMemoryPickleScanner(SecondOpinion.UNVERIFIED, {PLAIN: FOUND})
    files = {"a.bin": SYSTEM, "b.bin": PLAIN}
    deployment, task = import_files(MODEL | files, PicklePolicy.WARN, scanner)
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.verdict is GateVerdict.UNSAFE
    assert model.gate.reasons == ("a.bin: Pickle imports os.system", f"b.bin: {FOUND.reasons[0]}")
    assert read_opinion(deployment, task) == (SecondOpinion.MALICIOUS, "malicious")


def test_clean_opinion_does_not_override_a_finding() -> None:
    scanner = InMemoryPickleScanner(SecondOpinion.CLEAN)
    _, task = import_files(MODEL | {"a.bin": SYSTEM}, scanner=scanner)
    assert task.status is TaskStatus.FAILED
    assert scanner.asked == []


@pytest.mark.parametrize(
    ("files", "policy", "opinion"),
    [
        ({}, PicklePolicy.BLOCK, None),
        ({"a.bin": PLAIN}, PicklePolicy.OFF, None),
        ({"a.bin": pickle.dumps(bytes(4_200_000))}, PicklePolicy.BLOCK, SecondOpinion.UNVERIFIED),
        ({"a.pkl": build_tar()}, PicklePolicy.WARN, SecondOpinion.UNVERIFIED),
    ],
    ids=["no pickle", "switched off", "too large", "cannot be looked through"],
)
def test_second_scanner_is_skipped_without_pickles(
    files: dict[str, bytes], policy: PicklePolicy, opinion: SecondOpinion | None
) -> None:
    scanner = InMemoryPickleScanner()
    deployment, task = import_files(MODEL | files, policy, scanner)
    assert read_opinion(deployment, task) == (opinion, opinion)
    assert scanner.asked == []


def test_size_of_second_scans_is_limited() -> None:
    scanner = InMemoryPickleScanner()
    files = {f"{number}.bin": pickle.dumps(bytes([number]) * 4_000_000) for number in range(6)}
    deployment, task = import_files(MODEL | files, scanner=scanner)
    assert read_opinion(deployment, task) == (SecondOpinion.UNVERIFIED, "unverified")
    assert scanner.asked == [(list(files.values())[:4], 60.0)]


def zip_models(models: dict[str, dict[str, bytes]]) -> bytes:
    return zip_files({f"{name}/{path}": content for name, files in models.items() for path, content in files.items()})


HOSTILE = MODEL | {"extra.pt": SYSTEM}
BROKEN = MODEL | {"extra.pt": POINTER}


def test_siblings_of_a_refused_model_are_published() -> None:
    deployment = Deployment()
    task = deployment.post(
        zip_models({"a": HOSTILE, "b": MODEL, "c": BROKEN, "d": MODEL | {"training_args.bin": SYSTEM}})
    )
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.DONE, ended.error
    models = {model.resolved.name: model for model in deployment.database.models.find_models(task.model_ids)}
    assert {name: model.status for name, model in models.items()} == {
        "a": ModelStatus.FAILED,
        "b": ModelStatus.READY,
        "c": ModelStatus.FAILED,
        "d": ModelStatus.READY,
    }
    errors = [models[name].error for name in "ac"]
    assert [error.type if error else None for error in errors] == ["unsafe-model", "invalid-model"]
    assert errors[0] is not None
    assert errors[0].detail.startswith("Loading the model could run code: extra.pt: Pickle imports os.system")
    published = {key.split("/")[2] for key in deployment.store.keys if key.startswith("models/")}
    assert published == {"b", "d"}
    manifests = [key for key in deployment.store.keys if key.startswith("manifests/")]
    assert sorted(manifests) == sorted(f"manifests/{models[name].model_id}.json" for name in "bd")
    assert [key for key in deployment.store.keys if key.startswith("staging/")] == []
    gate = models["d"].gate
    assert gate is not None
    assert gate.left_out == ("training_args.bin",)
    again = deployment.post(zip_models({"a": MODEL}))
    deployment.run()
    assert deployment.find_task(again.id).status is TaskStatus.DONE, "the name is free again"


def test_task_names_each_model_if_all_are_refused() -> None:
    deployment = Deployment()
    task = deployment.post(zip_models({"a": HOSTILE, "b": BROKEN}))
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.FAILED
    assert ended.error is not None
    assert ended.error.type == "unsafe-model"
    assert "a: Loading the model could run code: extra.pt: Pickle imports os.system" in ended.error.detail
    assert "b: extra.pt: Git LFS pointer" in ended.error.detail
    errors = [model.error.type for model in deployment.database.models.find_models(task.model_ids) if model.error]
    assert sorted(errors) == ["invalid-model", "unsafe-model"]
    assert [key for key in deployment.store.keys if key.startswith(("models/", "staging/"))] == []


def test_only_the_header_of_a_large_file_is_read() -> None:
    header = struct.pack("<Q", 2**40)
    _, task = import_files(MODEL | {"model.safetensors": header + bytes(100)})
    assert task.error is not None
    assert "header" in task.error.detail
