"""Validation and configuration of the local stack, without a running stack."""

import socket
from pathlib import Path

import pytest

from local import stack
from local.errors import LocalStackError
from local.sources import SourceUrls
from local.stack import LocalStack, find_port


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stack, "LOCAL", tmp_path)
    return tmp_path


def test_each_stack_has_its_own_state(own_folder: Path) -> None:
    assert LocalStack().state_path == own_folder / "stack.json"
    assert LocalStack("second").state_path == own_folder / "second" / "stack.json"


@pytest.mark.parametrize("name", ["", "../x", "Name", "a" * 40])
def test_invalid_names_are_rejected(name: str) -> None:
    with pytest.raises(LocalStackError, match="Invalid stack name"):
        LocalStack(name)


@pytest.mark.parametrize("name", ["venvs", "builds", "tools", "benchmarks"])
def test_reserved_names_are_rejected(name: str) -> None:
    with pytest.raises(LocalStackError, match=f"The stack name '{name}' is reserved"):
        LocalStack(name)


def test_port_in_use_is_rejected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"Cannot use port {port} of 127.0.0.1"):
            find_port(port)


def test_invalid_endpoint_is_rejected_and_leaves_no_state(own_folder: Path) -> None:
    with pytest.raises(LocalStackError, match="HF_ENDPOINT must be an HTTP or HTTPS URL"):
        LocalStack().start("auto", SourceUrls(hub="hub.example"), 0, lambda _: None)
    assert not (own_folder / "stack.json").exists()


def test_failed_start_includes_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.stack.ROOT", Path("/"))
    with pytest.raises(
        LocalStackError, match=r"The loopback Hub and GitHub process exited during startup:\n.*No module named"
    ):
        LocalStack().start("loopback", SourceUrls(), 0, lambda _: None)


def test_stop_is_a_no_op_without_a_stack() -> None:
    assert LocalStack().stop() is False
