"""The installed `modelhaul` against the deployed stack, as a person and as a script use it."""

import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import Stack
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import COMMAND_LINE, GATED, build_github_small, build_small_files
from tests.weights import wrap_weights

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

COMMAND = Path(sys.executable).with_name("modelhaul")


@dataclass(frozen=True)
class Terminal:
    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [COMMAND, *map(str, arguments)],
            check=False,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        # A shell's background job has it ignored, and so would the program.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)], cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True
        )

    def read(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """The lines of JSON."""
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).stdout.splitlines()]

    def read_document(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run(*arguments, "--json", code=code).stdout)
        return document


@pytest.fixture
def terminal(stack: Stack, tmp_path: Path) -> Terminal:
    """In a folder below that of the stack's state, as `make up` leaves it."""
    (tmp_path / ".local").mkdir()
    state = {"api_url": stack.state.api_url, "api_key": stack.state.api_key}
    (tmp_path / ".local" / "stack.json").write_text(json.dumps(state))
    folder = tmp_path / "work"
    folder.mkdir()
    return Terminal(folder, {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8"})


def write_archive(path: Path, size: int, *names: str) -> dict[str, bytes]:
    """A ZIP of models that differ, of about `size` bytes each; the files of one of them."""
    files = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            files["model.safetensors"] = wrap_weights(random.Random(f"{path.name}{name}{size}").randbytes(size))
            for file, content in files.items():
                archive.writestr(f"{name}/{file}", content)
    return files


def test_a_model_of_the_hub(stack: Stack, terminal: Terminal) -> None:
    events = terminal.read("hf", COMMAND_LINE)
    assert [events[0]["task_status"], events[-1]["task_status"]] == ["PENDING", "DONE"]
    (model,) = events[-1]["models"]
    key = model["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert len(stack.list_keys(key)) == len(build_small_files(COMMAND_LINE))
    again = terminal.read("hf", f"https://huggingface.co/{COMMAND_LINE}", code=4)
    assert again[0]["error"]["type"] == "urn:modelhaul:problem:model-exists"
    assert model["model_id"] in terminal.run("hf", COMMAND_LINE, "--exist-ok").stdout
    shown = terminal.run("status", events[-1]["id"])
    assert "DONE" in shown.stdout
    assert model["location"] in shown.stdout
    assert events[-1]["id"][:8] in terminal.run("tasks", "--source", "huggingface", "--limit", "100").stdout
    assert model["location"] in terminal.run("show", f"{COMMAND_LINE}@main").stdout
    assert events[-1]["commit"] == model["commit"]


def test_a_repository_with_slashes_in_its_revision(stack: Stack, github: RemoteUpstream, terminal: Terminal) -> None:
    ended = terminal.run("github", f"{COMMAND_LINE}@feature/x")
    assert ended.stdout.startswith(f"{COMMAND_LINE}: s3://{stack.state.models_bucket}/models/github/")
    assert "Task " in ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    location = ended.stdout.split()[1].removeprefix(f"s3://{stack.state.models_bucket}/")
    expected = build_github_small(COMMAND_LINE)
    assert set(stack.list_keys(location)) >= {location + path for path in expected}
    assert stack.read_object(f"{location}pytorch_model.bin") == expected["pytorch_model.bin"]


def test_refusals_have_words_and_codes(stack: Stack, terminal: Terminal) -> None:
    assert "gated" in terminal.run("hf", GATED, code=5).stderr
    assert "Model not found" in terminal.run("hf", "tests/nothing", code=3).stderr
    assert "Invalid model name" in terminal.run("hf", "a/b/c", code=2).stderr
    assert "Task not found" in terminal.run("status", "nothing", code=3).stderr
    unknown = Terminal(terminal.folder, {**terminal.environment, "MODELHAUL_API_KEY": "of-another-stack"})
    unknown.environment["MODELHAUL_API_URL"] = stack.state.api_url
    unknown.run("tasks", code=5)


@pytest.mark.parametrize(("size", "way"), [(200_000, "posted"), (3_000_000, "put")])
def test_an_archive_of_two_models(stack: Stack, terminal: Terminal, size: int, way: str) -> None:
    archive = terminal.folder / f"{way}.zip"
    files = write_archive(archive, size, "first", "second")
    assert (archive.stat().st_size > 4_500_000) == (way == "put")
    task = terminal.read("zip", archive, "--name", f"cli/{way}")[-1]
    assert task["task_status"] == "DONE", task
    assert [model["name"] for model in task["models"]] == [f"cli/{way}/first", f"cli/{way}/second"]
    location = task["models"][1]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert stack.read_object(f"{location}model.safetensors") == files["model.safetensors"]
    again = terminal.run("zip", archive, "--name", f"cli/{way}", code=4)
    assert "already exist" in again.stderr


def test_a_damaged_archive_is_a_failed_import(terminal: Terminal) -> None:
    archive = terminal.folder / "damaged.zip"
    write_archive(archive, 200_000, "damaged")
    content = bytearray(archive.read_bytes())
    content[100_000] ^= 0xFF
    archive.write_bytes(content)
    assert "Archive rejected" in terminal.run("zip", archive, code=1).stderr


def test_ctrl_c_leaves_the_import_which_can_be_cancelled(stack: Stack, terminal: Terminal) -> None:
    archive = terminal.folder / "held.zip"
    write_archive(archive, 200_000, "held")
    with stack.pause_consumer("TransferQueue"):
        process = terminal.start("zip", archive)
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        task_id = lines[1].split()[-1]
        stack.wait_for(task_id, lambda task: task["stage"] == "TRANSFERRING")
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"modelhaul status {task_id} --follow" in rest
        terminal.run("cancel", task_id)
    ended = terminal.read_document("status", task_id, code=1)
    assert ended["stage"] == "CANCELLED"
    terminal.run("cancel", task_id)
    done = terminal.read("zip", archive)[-1]
    terminal.run("cancel", done["id"], code=4)


def test_a_model_is_found_shown_fetched_and_removed(stack: Stack, terminal: Terminal) -> None:
    archive = terminal.folder / "kept.zip"
    files = write_archive(archive, 300_000, "kept")
    (model,) = terminal.read("zip", archive, "--name", "cli/Kept-Model")[-1]["models"]
    model_id = model["model_id"]
    listed = terminal.read_document("ls", "--name", "kept-mod", "--source", "local")["models"]
    assert [m["model_id"] for m in listed] == [model_id]
    assert "cli/Kept-Model" in terminal.run("ls", "--name", "KEPT").stdout
    shown = terminal.read_document("show", model_id)
    assert shown["location"] == model["location"]
    assert sorted(f["path"] for f in shown["manifest"]["files"]) == sorted(files)
    assert "model.safetensors" in terminal.run("show", model_id).stdout
    fetched = terminal.read_document("get", model_id)
    assert fetched["fetched"] == len(files)
    folder = terminal.folder / "Kept-Model"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
    (folder / "config.json").unlink()
    assert terminal.read_document("get", model_id, "*.json", "--to", folder)["fetched"] == 1
    assert "--yes" in terminal.run("rm", model_id, code=2).stderr
    assert terminal.read_document("rm", model_id, "--yes")["deleted"] is True
    terminal.run("show", model_id, code=3)
    terminal.run("rm", model_id, "--yes", code=3)
    assert stack.list_keys("models/local/cli/Kept-Model/") == []
