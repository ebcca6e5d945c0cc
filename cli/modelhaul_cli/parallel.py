"""Several jobs at once, in threads that do not keep the process alive."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence

TICK = 0.2  # seconds


def run_parallel[J, R](
    jobs: Sequence[J], work: Callable[[J, threading.Event], R], *, workers: int, tick: Callable[[], None]
) -> Generator[R]:
    """Results as they come; the first error of a job is raised and ends it all, as closing this does. `tick` is called
    all along, here.

    `work` looks at its event now and then, which says that nobody waits any more. The threads are daemons: at Ctrl-C
    the process ends at once, also if one of them hangs in a network call.
    """
    waiting: queue.SimpleQueue[J] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    done: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((work(job, stopped), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                stopped.set()
                done.put((None, error))

    try:
        for _ in range(min(workers, len(jobs))):
            threading.Thread(target=run, daemon=True).start()
        for _ in jobs:
            yield _wait(done, tick)
    finally:
        stopped.set()


def _wait[R](done: "queue.SimpleQueue[tuple[R | None, BaseException | None]]", tick: Callable[[], None]) -> R:
    while True:
        tick()
        try:
            result, error = done.get(timeout=TICK)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # there is a result where there is no error
