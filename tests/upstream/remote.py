"""Control of a loopback upstream (the Hub, GitHub) that runs in another process, through its control routes."""

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from tests.upstream.faults import Fault
from tests.upstream.request_log import RequestRecord


class RemoteUpstream:
    """The part of LoopbackHub and LoopbackGitHub that tests need, over HTTP. Raises RuntimeError when it is refused."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def requests(self) -> list[RequestRecord]:
        return TypeAdapter(list[RequestRecord]).validate_python(self._call("GET", "/_requests"))

    @property
    def faults(self) -> list[Fault]:
        return TypeAdapter(list[Fault]).validate_python(self._call("GET", "/_faults"))

    def add_fault(self, *faults: Fault) -> None:
        self._call("POST", "/_faults", [fault.model_dump(mode="json") for fault in faults])

    def clear_faults(self) -> None:
        self._call("DELETE", "/_faults")

    def clear_requests(self) -> None:
        self._call("DELETE", "/_requests")

    def move_branch(self, repo_id: str, branch: str, revision: str) -> str:
        move = {"repo_id": repo_id, "branch": branch, "revision": revision}
        sha: str = self._call("POST", "/_branches", move)["sha"]
        return sha

    def wait_for_requests(
        self, satisfied: Callable[[list[RequestRecord]], bool], timeout: float = 10
    ) -> list[RequestRecord]:
        """As LoopbackHub's, by polling."""
        deadline = time.monotonic() + timeout
        while not satisfied(records := self.requests):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not satisfied after {timeout} s by {records}")
            time.sleep(0.05)
        return records

    def _call(self, method: str, path: str, value: object = None) -> Any:
        connection = HTTPConnection(urlsplit(self.endpoint).netloc, timeout=10)
        try:
            connection.request(method, path, None if value is None else json.dumps(value))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {body.decode()}")
        return json.loads(body) if body else None
