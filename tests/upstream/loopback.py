"""What the loopback Hub and the loopback GitHub have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

from tests.upstream.faults import ActiveFaults, Fault
from tests.upstream.request_log import RequestLog, RequestRecord


class Repository(Protocol):
    def move_branch(self, branch: str, revision: str) -> str: ...


class LoopbackUpstream[RepositoryT: Repository](ABC):
    """Serves repositories on free ports of 127.0.0.1, by threads from `start` to `close` (or `with`)."""

    def __init__(self) -> None:
        self.repositories: dict[str, RepositoryT] = {}
        self._tokens: dict[str, set[str]] = {}
        self._faults = ActiveFaults()
        self._log = RequestLog()

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def requests(self) -> list[RequestRecord]:
        return self._log.list_records()

    @property
    def faults(self) -> list[Fault]:
        """Those that can still strike."""
        return self._faults.list_pending()

    def grant(self, token: str, *names: str) -> None:
        """Make the token known, and let it read these gated and private repositories."""
        self._tokens.setdefault(token, set()).update(names)

    def move_branch(self, repo_id: str, branch: str, revision: str) -> str:
        """Point a branch at another revision and return its sha. Raises KeyError when one is unknown."""
        return self.repositories[repo_id].move_branch(branch, revision)

    def add_fault(self, *faults: Fault) -> None:
        self._faults.add(faults)

    def clear_faults(self) -> None:
        """Switch all faults off and let stalled answers go on."""
        self._faults.clear()

    def clear_requests(self) -> None:
        self._log.clear()

    def wait_for_requests(
        self, satisfied: Callable[[list[RequestRecord]], bool], timeout: float = 10
    ) -> list[RequestRecord]:
        """Return the log once `satisfied(log)`; TimeoutError after `timeout` seconds."""
        return self._log.wait_for(satisfied, timeout)
