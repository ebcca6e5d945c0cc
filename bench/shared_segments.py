"""Segments of a file that several processes transfer: a repository in memory, and the time of DynamoDB's requests."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from threading import Thread
from typing import Any, cast

from modelhaul.ports.segments import SegmentRepository
from tests.fakes.segments import InMemorySegmentRepository
from tests.fakes.tables import InMemoryTables

_HOST = "127.0.0.1"
_KEY = b"benchmark"
_REQUEST_SECONDS = 0.006  # of DynamoDB, within a region


class _Manager(BaseManager):
    """Serves one repository. The server is a thread of this process."""


@contextmanager
def serve_segments() -> Iterator[int]:
    """Serve an empty repository, and yield its port."""
    repository = InMemorySegmentRepository(InMemoryTables())
    _Manager.register("open_repository", callable=lambda: repository)
    server = _Manager((_HOST, 0), _KEY).get_server()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield cast("tuple[str, int]", server.address)[1]


def connect_segments(port: int) -> SegmentRepository:
    _Manager.register("open_repository")
    manager = _Manager((_HOST, port), _KEY)
    manager.connect()
    return cast("SegmentRepository", _Delayed(manager.open_repository()))  # type: ignore[attr-defined]


class _Delayed:
    def __init__(self, repository: object) -> None:
        self._repository = repository

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)

        def call(*arguments: Any) -> Any:
            time.sleep(_REQUEST_SECONDS)
            return method(*arguments)

        return call
