"""Models that earlier versions published as clean, although loaders run their code. Each is a permanent case."""

import json
import pickle
import struct
from itertools import product

import pytest

from modelhaul.domain.gate import GateVerdict, PicklePolicy
from modelhaul.domain.tasks import Task, TaskStatus
from tests.archives.zipping import zip_files
from tests.differential.test_tar_reader import build_v7
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.pickles import PLAIN, SYSTEM, assemble, build_array, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}


def import_files(files: dict[str, bytes], policy: PicklePolicy = PicklePolicy.BLOCK) -> tuple[Deployment, Task]:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": MODEL | files}}), pickle_policy=policy)
    task = deployment.submit(NAME)
    deployment.run()
    return deployment, deployment.find_task(task.id)


def check_refused(files: dict[str, bytes], *words: str) -> None:
    deployment, task = import_files(files)
    assert task.error is not None, "published"
    assert task.error.type == "unsafe-model"
    for word in words:
        assert word in task.error.detail
    assert [key for key in deployment.store.keys if key.startswith(("models/", "staging/"))] == []
    deployment, task = import_files(files, PicklePolicy.WARN)
    assert task.status is TaskStatus.DONE
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert model.gate.verdict is not GateVerdict.CLEAN


CALL = assemble("os", "system", form="text")
NUMBERS = {
    "F": b"F1.5\x00junk\n0",
    "I": b"I1\x00junk\n0",
    "L": b"L1L\x00junk\n0",
    "PUT": b"Np0\x00junk\n0",
    "GET": b"Np0\ng0\x00junk\n00",
}


@pytest.mark.parametrize("path", ["pytorch_model.bin", "a.pt", "a.pkl", "weights"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_end_at_nul(name: str, path: str) -> None:
    """C's unpickler ends the number at NUL and continues to the call; pickletools raises ValueError."""
    check_refused({path: NUMBERS[name] + CALL}, path, "Pickle imports os.system")


DTYPES = [
    "'object'", "'object_'", "'T'", "'i4,O'", "'(2,)object'", "[('a','object')]", "[('a', 'i4'), ('b', 'O')]",
    "'|O'", "'O8'", "'>O'", "{'names': ['a'], 'formats': ['O']}", "('O', (2,))", "'a,object'", "'O,O'", "'2O'",
]  # fmt: skip


@pytest.mark.parametrize("descr", DTYPES)
def test_numpy_arrays_of_objects(descr: str) -> None:
    array = build_array(descr, SYSTEM)
    for files in ({"a.npy": array}, {"a.npz": zip_files({"a.npy": array})}, {"pytorch_model.bin": array}):
        check_refused(files, next(iter(files)))


LEGACY: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}, {}, []]
PICKLES = b"".join(pickle.dumps(value, 2) for value in LEGACY)


@pytest.mark.parametrize("name", [b"storages", PICKLES[:99], b"\x80\x02N." * 5])
@pytest.mark.parametrize("path", ["pytorch_model.bin", "model.bin", "a.pt", "a.ckpt", "weights"])
def test_tar_archives_without_magic(path: str, name: bytes) -> None:
    check_refused({path: build_v7(name)}, "Unsupported: tar archive")


def hide_directory(shown: bytes, hidden: bytes, *, length: int | None = None) -> bytes:
    """Return a ZIP archive whose comment is a second ZIP archive. Readers differ in which one they read."""
    content = bytearray(shown)
    end = content.rfind(b"PK\x05\x06")
    content[end + 20 : end + 22] = struct.pack("<H", len(hidden) if length is None else length)
    return bytes(content) + hidden


@pytest.mark.parametrize("length", [None, 0, 5])
def test_second_directory_in_a_comment(length: int | None) -> None:
    content = hide_directory(build_torch_zip(PLAIN), build_torch_zip(SYSTEM), length=length)
    check_refused({"pytorch_model.bin": content}, "pytorch_model.bin: Invalid ZIP archive")


def test_second_directory_in_the_comment_of_an_imported_archive() -> None:
    shown = zip_files({f"a/{path}": content for path, content in MODEL.items()})
    hidden = zip_files({"a/config.json": b'{"auto_map": {}}', "a/x.py": b""})
    deployment = Deployment()
    task_id = deployment.drop(hide_directory(shown, hidden))
    deployment.run()
    task = deployment.find_task(task_id)
    assert task.error is not None
    assert task.error.type == "archive-refused"


INDEXES = [
    "pytorch_model.bin.index.json", "adapter_model.bin.index.json", "unet/diffusion_pytorch_model.bin.index.json",
    "sub/folder/pytorch_model.bin.index.fp16.json", "model.safetensors.index.json",
]  # fmt: skip


@pytest.mark.parametrize(
    ("index", "shard"), list(product(INDEXES, ["vocab.txt", "x.json", "x.md", "x.gguf", "x.onnx", "x.py", "LICENSE"]))
)
def test_index_that_lists_a_non_weight_file_as_a_shard(index: str, shard: str) -> None:
    folder = index.rpartition("/")[0]
    path = f"{folder}/{shard}" if folder else shard
    naming = {index: json.dumps({"weight_map": {"a": shard}}).encode()}
    check_refused(naming | {path: CALL}, f"{path}: Pickle imports os.system")
    check_refused(naming | {path: build_torch_zip(SYSTEM)}, "Pickle imports os.system")
