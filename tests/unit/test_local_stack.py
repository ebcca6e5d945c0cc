"""Choices and refusals of the local stack that need no running stack."""

import socket
from pathlib import Path

import pytest

from local import stack
from local.errors import LocalStackError
from local.sources import Addresses
from local.stack import LocalStack, find_port


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stack, "LOCAL", tmp_path)
    return tmp_path


def test_the_default_stack_and_a_second_one_have_their_own_state(own_folder: Path) -> None:
    assert LocalStack().state_path == own_folder / "stack.json"
    assert LocalStack("second").state_path == own_folder / "second" / "stack.json"


@pytest.mark.parametrize("name", ["", "../x", "Name", "venvs", "builds", "a" * 40])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(LocalStackError, match="cannot be the name of a stack"):
        LocalStack(name)


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"port {port} of 127.0.0.1 cannot be used"):
            find_port(port)


def test_an_endpoint_that_is_no_address_is_refused_and_leaves_nothing(own_folder: Path) -> None:
    with pytest.raises(LocalStackError, match="HF_ENDPOINT must be an http or https address"):
        LocalStack().start("auto", Addresses(hub="hub.example"), 0, lambda _: None)
    assert not (own_folder / "stack.json").exists()


def test_a_hub_that_cannot_start_is_said_with_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.stack.ROOT", Path("/"))
    with pytest.raises(
        LocalStackError, match=r"the loopback Hub and GitHub ended while it started:\n.*No module named"
    ):
        LocalStack().start("loopback", Addresses(), 0, lambda _: None)


def test_stopping_what_was_never_started_is_harmless() -> None:
    assert LocalStack().stop() is False
