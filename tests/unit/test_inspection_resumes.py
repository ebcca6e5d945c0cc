"""An inspection at publication that takes longer than one function: another function continues it, and inspects no file
twice.

Publication inspects files without a report, such as those that were verified before the policy was changed.
"""

import hashlib
import json
from collections import Counter

import pytest

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.gate import GateReport, PicklePolicy
from modelhaul.domain.keys import inspection_key
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.inspection import gate
from modelhaul.inspection.opened import OpenedFile
from modelhaul.inspection.recognize import inspect_file
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.object_store import InMemoryObjectStore
from tests.pickles import PLAIN, SYSTEM, build_array, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}
FILES = MODEL | {
    "a.bin": PLAIN,
    "b.pt": build_torch_zip(PLAIN),
    "c.npy": build_array("'<f4'", bytes(8)),
    "d.py": b"print()",
    "e.png": b"\x89PNG\r\n\x1a\n",
    "f.h5": b"\x89HDF\r\n\x1a\n",
    "training_args.bin": SYSTEM,
}


class Died(BaseException):
    """The function is killed."""


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of inspections of each file during the test."""
    counts: Counter[str] = Counter()

    def count(file: OpenedFile) -> ContentReport:
        counts[file.path] += 1
        return inspect_file(file)

    monkeypatch.setattr(gate, "inspect_file", count)
    return counts


def import_files(files: dict[str, bytes], seconds: float = 800.0) -> tuple[Deployment, Task]:
    """`seconds`: what each function has left."""
    deployment = Deployment(InMemoryModelSource({NAME: {"main": files}}), remaining=lambda: seconds)
    deployment.pickle_policy = PicklePolicy.OFF  # of the functions that verify the files
    task = deployment.submit(NAME)
    return deployment, task


def read_report(deployment: Deployment, task: Task) -> GateReport:
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    return model.gate


def test_every_function_inspects_at_least_one_file(inspected: Counter[str]) -> None:
    whole, first = import_files(FILES)
    whole.run()
    expected = read_report(whole, first)
    inspected.clear()

    short, task = import_files(FILES, 100.0)
    delivered = short.run()
    assert short.find_task(task.id).status is TaskStatus.DONE
    report = read_report(short, task)
    assert (report.verdict, report.flags, report.files, report.left_out) == (
        expected.verdict,
        expected.flags,
        expected.files,
        expected.left_out,
    )
    assert report.second_opinion is expected.second_opinion
    assert delivered > len(FILES)
    assert inspected == Counter(FILES.keys()), "each file once"
    assert [key for key in short.store.keys if key.startswith(("inspections/", "staging/"))] == []


def test_saved_reports_of_a_killed_function_are_reused(
    inspected: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, task = import_files(FILES)
    dies = iter([False, False, False, True])
    original = InMemoryObjectStore.put

    def put(store: InMemoryObjectStore, key: str, body: bytes, *, sha256: str) -> str:
        etag = original(store, key, body, sha256=sha256)
        if key.startswith("inspections/") and next(dies, False):
            raise Died
        return etag

    monkeypatch.setattr(InMemoryObjectStore, "put", put)
    deployment.remaining = lambda: 100.0
    with pytest.raises(Died):
        deployment.run()
    saved = json.loads(deployment.read(inspection_key(task.id)))["reports"]
    assert 0 < len(saved) < len(FILES)
    inspected.clear()
    deployment.remaining = lambda: 800.0
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert inspected == Counter(path for path in FILES if path not in saved)
    assert not [key for key in deployment.store.keys if key.startswith("inspections/")]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"version": 2}', b'{"version": 1, "reports": {"a": 1}}'])
def test_unreadable_notes_are_ignored(content: bytes) -> None:
    deployment, task = import_files(FILES, 100.0)
    key = inspection_key(task.id)
    deployment.store.put(key, content, sha256=hashlib.sha256(content).hexdigest())
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert read_report(deployment, task).left_out == ("training_args.bin",)


def test_resumed_inspection_has_the_same_error() -> None:
    deployment, task = import_files(FILES | {"z.pkl": SYSTEM}, 100.0)
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert (error.type, error.detail.split(": ")[1]) == ("unsafe-model", "z.pkl")
    assert not [key for key in deployment.store.keys if key.startswith(("models/", "staging/"))]
