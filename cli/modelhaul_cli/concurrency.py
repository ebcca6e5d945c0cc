"""Concurrent jobs in daemon threads."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence

POLL_INTERVAL = 0.2  # seconds


def run_concurrently[J, R](
    jobs: Sequence[J], work: Callable[[J, threading.Event], R], *, concurrency: int, on_poll: Callable[[], None]
) -> Generator[R]:
    """Yield results in order of completion. The first error of a job is raised and cancels the other jobs, and so does
    closing the generator. `on_poll` is called in this thread every POLL_INTERVAL seconds.

    `work` must check its event regularly and stop when it is set. The threads are daemons, so that the process exits on
    Ctrl-C even if a thread hangs in a network call.
    """
    pending: queue.SimpleQueue[J] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)
    done: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            try:
                job = pending.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((work(job, stopped), None))
            except BaseException as error:  # noqa: BLE001 - raised again by the consumer
                stopped.set()
                done.put((None, error))

    try:
        for _ in range(min(concurrency, len(jobs))):
            threading.Thread(target=run, daemon=True).start()
        for _ in jobs:
            yield _wait(done, on_poll)
    finally:
        stopped.set()


def _wait[R](done: "queue.SimpleQueue[tuple[R | None, BaseException | None]]", on_poll: Callable[[], None]) -> R:
    while True:
        on_poll()
        try:
            result, error = done.get(timeout=POLL_INTERVAL)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # without an error there is a result
