"""A burst of imports with faults everywhere: all end right, none twice."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from modelhaul.domain.errors import ImportInProgressError, SourceUnavailableError, StorageUnavailableError
from modelhaul.domain.messages import Message
from modelhaul.domain.tasks import Task, TaskStatus
from tests.fakes.deployment import QUICK, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.template.rules import MAX_RECEIVES
from tests.weights import wrap_weights

IMPORTS = 500
FAULTS = 0.01
FUNCTIONS = 8


class Faulty:
    """Another object's calls, one in a hundred of which fails: before it does anything, or with its reply lost."""

    def __init__(self, inner: Any, chance: Callable[[], float]) -> None:
        self._inner = inner
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **options: Any) -> Any:
            drawn = self._chance()
            if drawn < FAULTS / 2:
                raise StorageUnavailableError("a fault before the call")
            answer = method(*args, **options)
            if drawn < FAULTS:
                raise StorageUnavailableError("the reply was lost")
            return answer

        return call


def build_models() -> dict[str, dict[str, dict[str, bytes]]]:
    generator = random.Random("models")
    return {
        f"org/model-{number:03}": {
            "main": {
                "config.json": b"{}",
                "tokenizer.json": b'{"number": %d}' % number,
                "model.safetensors": wrap_weights(generator.randbytes(40_000)),
            }
        }
        for number in range(IMPORTS)
    }


class Burst:
    """A deployment whose functions run side by side."""

    def __init__(self) -> None:
        generator, drawing = random.Random("faults"), threading.Lock()

        def draw() -> float:
            with drawing:
                return generator.random()

        def fail_sometimes(*_: object) -> None:
            if draw() < FAULTS:
                raise SourceUnavailableError("the source has a fault")

        self.source = InMemoryModelSource(build_models(), on_list=fail_sometimes, on_read=fail_sometimes)
        self.deployment = Deployment(self.source)
        store, queue = (Faulty(part, draw) for part in (self.deployment.store, self.deployment.queue))
        database = self.deployment.database.map(lambda repository: Faulty(repository, draw))
        self.deployment.connect(database, store, queue, QUICK)
        self.ended_at: dict[str, float] = {}

    def submit(self, name: str) -> Task:
        while True:
            with suppress(StorageUnavailableError, SourceUnavailableError):
                try:
                    return self.deployment.submit(name)
                except ImportInProgressError as held:
                    # The first try was accepted, and its reply lost.
                    return self.deployment.find_task(held.task_id)

    def is_done(self, task: Task) -> bool:
        """If it is not, it failed with words, and can be submitted again."""
        ended = self.deployment.find_task(task.id)
        if ended.status is TaskStatus.FAILED:
            assert ended.error is not None
            assert ended.error.retryable, ended.error
        return ended.status is TaskStatus.DONE

    def run(self) -> None:
        """Until nothing is watched any more; what a function does takes no time, waits do."""
        deployment, clock = self.deployment, self.deployment.clock
        with ThreadPoolExecutor(FUNCTIONS) as functions:
            while True:
                while (due := deployment.queue.next_due) is not None:
                    clock.now = max(clock.now, due)
                    list(functions.map(self._deliver, deployment.receive()))
                if not deployment.database.tasks.list_due(float("inf"), 1):
                    return
                clock.now += 300
                with suppress(StorageUnavailableError):
                    deployment.sweeper.sweep_stale(lambda: 300.0)

    def _record_dead_letter(self, message: Message) -> None:
        while True:
            with suppress(StorageUnavailableError):
                self.deployment.runner.record_crash(message)
                return

    def _deliver(self, message: Message) -> None:
        """As SQS: what could not be settled comes again."""
        for deliveries in range(1, MAX_RECEIVES + 1):
            with suppress(StorageUnavailableError):
                self.deployment.deliver(message, deliveries=deliveries)
                break
        else:
            self._record_dead_letter(message)
        task = self.deployment.find_task(message.task_id)
        if task.status is not TaskStatus.PENDING:
            self.ended_at.setdefault(task.id, self.deployment.clock.now)


@pytest.mark.timeout(300)
def test_five_hundred_imports_in_a_burst_all_end_right(record_property: Callable[[str, object], None]) -> None:
    burst = Burst()
    with ThreadPoolExecutor(FUNCTIONS) as callers:
        tasks = list(callers.map(burst.submit, burst.source.models))
    assert len({task.id for task in tasks}) == IMPORTS
    burst.run()
    deployment = burst.deployment
    failed = [name for name, task in zip(burst.source.models, tasks, strict=True) if not burst.is_done(task)]
    assert len(failed) < IMPORTS / 20, "four tries of a step with some thirty calls each fail now and then"
    while failed:
        again = {name: burst.submit(name) for name in failed}
        burst.run()
        tasks += again.values()
        failed = [name for name, task in again.items() if not burst.is_done(task)]
    ended = [task for task in map(deployment.find_task, (task.id for task in tasks)) if burst.is_done(task)]
    assert len(ended) == IMPORTS
    expected = {burst.source.prefix(name): branches["main"] for name, branches in burst.source.models.items()}
    deployment.submitted = [task.id for task in tasks]
    deployment.check_promises(expected)
    # A failed import keeps its verified files there, for the next one to use.
    kept = {key.split("/")[1] for key in deployment.store.keys if key.startswith("staging/")}
    assert kept <= {task.id for task in tasks if not burst.is_done(task)}
    assert len({model for task in ended for model in task.model_ids}) == IMPORTS
    waits = sorted(burst.ended_at[task.id] - task.created_at.timestamp() for task in ended)
    record_property("simulated waits", f"half within {waits[IMPORTS // 2]:.0f} s, the slowest {waits[-1]:.0f} s")
