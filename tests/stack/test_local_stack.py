"""`make run` beside another stack, as a person has it: it comes up, imports, and Ctrl-C leaves nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from local.processes import is_running
from local.stack import CLIENT_CONFIG, ROOT, LocalStack, open_session
from tests.stack.conftest import END_WITHIN, Stack, wait_until
from tests.upstream.repositories import SMALL

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def wait_for_line(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    seen: list[str] = []

    def is_there() -> bool:
        has_ended = process.poll() is not None
        seen[:] = [log.read_text()]
        assert text in seen[0] or not has_ended, seen[0]
        return text in seen[0]

    wait_until(is_there, seen, within=4 * END_WITHIN)


def read_status(url: str, headers: dict[str, str]) -> str:
    status: str = requests.get(url, headers=headers, timeout=30).json()["task_status"]
    return status


def paste_commands(printed: str, home: Path) -> str:
    """Run the printed commands in order, in one shell, and return their output."""
    commands = [line for line in printed.splitlines() if re.match(r"  (?:curl|until|export|\S*/bin/)", line)]
    finished = subprocess.run(
        ["sh", "-e", "-c", "\n".join(commands)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * END_WITHIN,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def test_location_resolves_against_the_address_of_the_api(stack: Stack) -> None:
    answer = stack.submit(SMALL)
    assert answer.status_code == 201
    for location in (answer.headers["Location"], "/v1/docs"):
        assert stack.http.get(urljoin(answer.url, location), timeout=30).status_code == 200
    assert requests.get(urljoin(stack.state.hub_url, "/hf/api/whoami-v2"), timeout=30).status_code == 401


def test_a_second_stack_runs_beside_the_first_until_ctrl_c(stack: Stack, tmp_path: Path) -> None:
    second = LocalStack(f"second-{os.getpid()}")
    log = tmp_path / "run.log"
    command = [sys.executable, "-m", "local", "--stack", second.name, "run", "--upstream", "loopback"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for_line(log, "Press Ctrl-C to stop it", process)
        assert "DONE 13/13 files" in log.read_text()
        assert "sample/tiny-bert: s3://" in log.read_text()
        state = json.loads(second.state_path.read_text())
        assert state["api_url"].endswith("/v1")
        assert state["aws_endpoint_url"] != stack.state.aws_endpoint_url
        pasted = paste_commands(log.read_text(), tmp_path)
        statuses = re.findall(r"^HTTP/1.1 (\d+)", pasted, re.MULTILINE)
        assert set(statuses) <= {"100", "200", "201"}, pasted
        assert statuses.count("201") == 3, "a ZIP archive, a model of the Hub, and one of GitHub"
        assert "tokenizer.json" in pasted.splitlines()[-1]
        key = {"x-api-key": state["api_key"]}
        for task in requests.get(f"{state['api_url']}/upload/tasks", headers=key, timeout=30).json()["tasks"]:
            url = f"{state['api_url']}/upload/tasks/{task['id']}"
            wait_until(lambda url=url: read_status(url, key) == "DONE", task)  # type: ignore[misc]
        answer = requests.get(
            f"{state['api_url']}/upload/tasks/unknown", headers={"x-api-key": state["api_key"]}, timeout=30
        )
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        s3 = open_session().client("s3", endpoint_url=state["aws_endpoint_url"], config=CLIENT_CONFIG)
        buckets = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        assert buckets >= {state["incoming_bucket"], state["models_bucket"]}
        assert (state["stack_name"], state["region"]) == ("modelhaul", s3.meta.region_name)
        started = [process for record in second.processes.read() for process in record.list_session()]
        assert len(started) > 2, "MiniStack, its functions and the Hub"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(2 * END_WITHIN) == 0
    finally:
        process.kill()
        process.wait()
        second.stop()
    assert [process for process in started if is_running(process)] == []
    assert not second.folder.exists()
    assert stack.http.get(f"{stack.state.api_url}/upload/tasks/unknown", timeout=30).status_code == 404
