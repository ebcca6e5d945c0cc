"""Files that torch and numpy have written. Ordinary files pass the gate; the same files with a call do not."""

from pathlib import Path

import pytest

from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.domain.gate import GateVerdict, PicklePolicy
from modelhaul.domain.tasks import TaskStatus
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.pickles.streams import inspect_pickles
from modelhaul.inspection.recognize import inspect_file
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
HOSTILE = CHECKPOINTS / "hostile"
NAMES = sorted(
    path.relative_to(HOSTILE).as_posix() for path in HOSTILE.rglob("*") if path.is_file() and path.suffix != ".json"
)
CALLED = [name for name in NAMES if not name.startswith("sharded/") or name.endswith("00004-of-00004.bin")]
"""Of the shards, only the last one has the call."""

NAME = "org/model"
CONFIGURATION = {"config.json": b"{}", "tokenizer.json": b"{}"}


def inspect(path: Path) -> ContentReport:
    content = path.read_bytes()

    def read(start: int, end: int) -> bytes:
        return content[start:end]

    return inspect_file(OpenedFile(path.name, len(content), content[:HEAD], read, is_unpickled(path.name)))


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_checkpoints_are_clean(name: str) -> None:
    report = inspect(CHECKPOINTS / name)
    assert (report.verdict, report.findings, report.is_loadable) == (FileVerdict.CLEAN, (), True), report


@pytest.mark.parametrize("name", CALLED)
def test_checkpoints_with_a_call_are_unsafe(name: str) -> None:
    report = inspect(HOSTILE / name)
    assert report.verdict is FileVerdict.UNSAFE
    assert [finding.detail.rpartition(": ")[2] for finding in report.findings] == ["Pickle imports posix.system"]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all files of a directory as one model, with the shards and their index at the root."""
    names = [*NAMES, "sharded/pytorch_model.bin.index.json"]
    return CONFIGURATION | {name.removeprefix("sharded/"): (folder / name).read_bytes() for name in names}


def test_model_of_ordinary_checkpoints_is_published_as_clean() -> None:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": read_files(CHECKPOINTS)}}))
    task = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE, deployment.find_task(task.id).error
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    assert (model.gate.verdict, model.gate.reasons, len(model.gate.scanned)) == (GateVerdict.CLEAN, (), len(NAMES))


def test_each_file_with_a_call_is_reported() -> None:
    source = InMemoryModelSource({NAME: {"main": read_files(HOSTILE)}})
    deployment = Deployment(source, pickle_policy=PicklePolicy.WARN)
    task = deployment.submit(NAME)
    deployment.run()
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.gate is not None
    named = {reason.partition(": ")[0] for reason in model.gate.reasons if reason.endswith(" imports posix.system")}
    assert named == {name.removeprefix("sharded/") for name in CALLED}


@pytest.mark.parametrize("allowed", (CHECKPOINTS / "weights_only.txt").read_text().split())
def test_imports_that_weights_only_allows_are_clean(allowed: str) -> None:
    module, _, name = allowed.rpartition(".")
    pickled = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
    report = inspect_pickles(lambda start, end: pickled[start:end], 0, len(pickled))
    assert report is not None
    assert report.verdict is FileVerdict.CLEAN
