"""What must always hold, whatever is lost, duplicated, reordered, killed or cancelled: random histories.

The promises of the design, and where each is proven:

1. A READY model's bytes are those that its source published, with a sha256 in the manifest: after every step here.
2. Of simultaneous submits of one model exactly one is accepted: here one call between another's; threads and DynamoDB
   itself in test_pipeline and the database's contract.
3. Every accepted task ends DONE, or FAILED with words and for a reason that was given: at each history's end here.
4. Duplicate deliveries change nothing: in the middle, and at the end with every message that ever was.
5. Memory does not grow with the file, the temp folder stays empty: not here, measured by the benchmarks.
6. A failed or cancelled import leaves no visible object, and no upload but those that the next import continues, and
   submitted again re-uses what was verified. What a READY model has is re-used as well, whatever was deleted before: at
   each history's end here.
7. A function can do its job and nothing else: not here, held by the tests of the template.
"""

import io
import itertools
import json
import secrets
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import md5, sha256
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelhaul.domain.errors import (
    DeletionInProgressError,
    ImportInProgressError,
    ModelExistsError,
    ModelNotFoundError,
    RateLimitedError,
    SourceUnavailableError,
    StorageUnavailableError,
    TaskEndedError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.messages import AcceptArchive, Message, TransferFiles
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.retry import MAX_ATTEMPTS
from modelhaul.ports.content_checks import ContentChecker
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.transfer import reuse
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes import model_source
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.model_source import InMemoryModelSource
from tests.template.rules import MAX_RECEIVES
from tests.troubles import (
    LARGE,
    PART,
    STREAM,
    WEIGHTS,
    Effect,
    Guarded,
    KilledError,
    Kind,
    Trouble,
    Troublemaker,
    WatchedDeployment,
    make_bytes,
)
from tests.weights import wrap_weights

type Files = dict[str, bytes]

# A large file has a message for each of two or three functions.
POLICY = TransferPolicy(small_file=LARGE, group_files=2, min_indexed=LARGE // 2, function_bytes=2 * PART, copy_groups=1)
OTHER_WEIGHTS = wrap_weights(make_bytes("other weights", 4 * PART))
VERSIONS: list[Files] = [
    {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "vocab.txt": b"vocab" * 100, "sub/empty.txt": b""},
    {"config.json": b'{"a": 2}', "model.safetensors": WEIGHTS, "vocab.txt": b"vocab" * 100},
    {
        "config.json": b'{"a": 1}',
        "model.safetensors": OTHER_WEIGHTS,
        "copy/model.safetensors": OTHER_WEIGHTS,
        "copy/config.json": b'{"a": 1}',
    },
    {"config.json": b"{}", "merges.txt": make_bytes("merges", 3000)},
]
NAMES = ["org/one", "org/two"]
ALIAS = "one"
BRANCHES = ["main", "next"]


def make_model(weights: bytes) -> Files:
    return {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.safetensors": weights}


@dataclass(frozen=True)
class Zip:
    """`models`: directory (`""` is the root) to its files."""

    models: dict[str, Files]
    method: int

    def build(self) -> bytes:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for directory, files in self.models.items():
                for path, content in files.items():
                    archive.writestr(zipfile.ZipInfo(f"{directory}/{path}".lstrip("/")), content, self.method)
        return body.getvalue()


ZIPS = [
    Zip({"a": make_model(WEIGHTS), "b": make_model(wrap_weights(b"tiny"))}, zipfile.ZIP_STORED),
    Zip({"a": make_model(OTHER_WEIGHTS)}, zipfile.ZIP_DEFLATED),
    Zip({"": {**make_model(WEIGHTS), "onnx/config.json": b"{}"}}, zipfile.ZIP_DEFLATED),
]
ARCHIVES = [archive.build() for archive in ZIPS]
ZIP_BY_ETAG = {md5(body).hexdigest(): archive for body, archive in zip(ARCHIVES, ZIPS, strict=True)}
KEYS = ["incoming/archive.zip", "incoming/team/archive.zip"]


OPERATIONS = [
    "add_opinions",
    "check",
    "claim_import",
    "claim_models",
    "complete_upload",
    "copy",
    "copy_part",
    "create_upload",
    "delete",
    "delete_upload",
    "fail_import",
    "find_blobs",
    "find_group",
    "find_groups",
    "find_kept_upload",
    "find_models",
    "find_task",
    "find_upload",
    "finish_import",
    "forget_blob",
    "forget_blobs",
    "lease_deletion",
    "lease_group",
    "list_copied",
    "list_groups",
    "list_parts",
    "list_uploads",
    "open_range",
    "postpone_check",
    "put",
    "put_blobs",
    "put_group",
    "put_groups",
    "put_kept_upload",
    "put_parts",
    "readinto",
    "record_arrival",
    "record_copied",
    "record_files",
    "record_offset",
    "record_progress",
    "record_task",
    "record_wait",
    "release_lease",
    "release_models",
    "remove_model",
    "replace_upload",
    "send",
    "start_stage",
    "take_over_upload",
    "unwatch_task",
    "upload_part",
    "write_outcome",
]


TROUBLE = st.one_of(
    st.builds(Trouble, st.sampled_from(Kind), st.integers(1, 40), st.sampled_from(Effect)),
    st.builds(Trouble, st.sampled_from(Kind), st.integers(1, 3), st.sampled_from(Effect), st.sampled_from(OPERATIONS)),
)
TROUBLES = st.lists(TROUBLE, min_size=1, max_size=2)
ANY = st.integers(0, 11)  # taken modulo what there is, as that is not for threads to change


@dataclass(frozen=True)
class Arrival:
    """S3's event of an archive that was dropped."""

    key: str
    size: int
    etag: str
    sequencer: str


@dataclass(frozen=True)
class Envelope:
    """A message, and how often SQS has delivered it once it is delivered. After MAX_RECEIVES, it is a dead letter."""

    content: Message | Arrival
    deliveries: int = 1


class Promises(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        numbers = itertools.count(1)
        for target, name, value in (
            (model_source, "_LARGE", LARGE),
            (uuid, "uuid4", lambda: uuid.UUID(int=next(numbers), version=4)),
            (secrets, "token_hex", lambda size: f"{next(numbers):0{2 * size}x}"),
        ):
            self.patches.enter_context(patch.object(target, name, value))
        self.trouble = Troublemaker(self.act_meanwhile)
        self.source = InMemoryModelSource(
            {name: {} for name in NAMES}, old_names={ALIAS: NAMES[0]}, served=self.serve_bytes
        )
        guarded = cast("InMemoryModelSource", Guarded("source", self.source, self.trouble))
        self.deployment = WatchedDeployment(guarded, remaining=self.tell_remaining, policy=POLICY)
        queue = self.open_adapters()
        self.clock = self.deployment.clock
        self.database, self.store, self.queue = self.deployment.database, self.deployment.store, self.deployment.queue
        self.archives = self.deployment.archives
        self.deployment.archives = cast("InMemoryArchiveStore", Guarded("archives", self.archives, self.trouble))
        self.deployment.connect(
            self.database.map(lambda repository: Guarded("database", repository, self.trouble)),
            cast("Any", Guarded("store", self.store, self.trouble)),
            cast("Any", Guarded("queue", queue, self.trouble)),
            STREAM,
        )
        create_checker = self.deployment.transferrer.create_checker
        self.deployment.transferrer = replace(
            self.deployment.transferrer,
            create_checker=lambda: cast("ContentChecker", Guarded("checker", create_checker(), self.trouble)),
        )
        self.waiting: list[Envelope] = []
        self.current: Message | None = None
        self.published: dict[str, Files] = {}
        self.suffered: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.replaced: set[str] = set()
        self.vanished: set[str] = set()
        # Those that were gone for a time, and came back, included.
        self.ever_vanished: set[str] = set()
        self.deleted = self.deployment.deleted
        self.sequencer = itertools.count(1)

    def open_adapters(self) -> MessageQueue:
        """May give the deployment others than those in memory; returns the queue that it is to send to."""
        return self.deployment.queue

    # The world

    @initialize(versions=st.lists(st.integers(0, len(VERSIONS) - 1), min_size=4, max_size=4))
    def fill_source(self, versions: list[int]) -> None:
        for (name, branch), version in zip(itertools.product(NAMES, BRANCHES), versions, strict=True):
            self.set_branch(name, branch, VERSIONS[version])

    def set_branch(self, name: str, branch: str, files: Files) -> None:
        self.source.models[name][branch] = files
        self.published[self.source.prefix(name, branch)] = files

    def serve_bytes(self, path: str, content: bytes) -> bytes:
        if not self.trouble.wrong or not content:
            return content
        at = len(content) * 2 // 3
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    def tell_remaining(self) -> float:
        return 0.0 if self.trouble.late else 300.0

    @rule(name=st.sampled_from(NAMES), branch=st.sampled_from(BRANCHES), version=ANY, vanish=st.booleans())
    def move_branch(self, name: str, branch: str, version: int, vanish: bool) -> None:
        """The commit that the branch had stays to be had, unless somebody rewrote the history."""
        old = self.source.prefix(name, branch)
        if not vanish:
            self.source.models[name][f"was-{next(self.sequencer)}"] = self.source.models[name][branch]
        self.set_branch(name, branch, VERSIONS[version % len(VERSIONS)])
        if old not in {self.source.prefix(name, b) for b in self.source.models[name]}:
            self.vanished.add(old)
            self.ever_vanished.add(old)
        self.vanished.discard(self.source.prefix(name, branch))

    @rule(seconds=st.sampled_from([1, 20, 100, 310, 1300, 4000]))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds

    # Who asks for something

    @rule(name=st.sampled_from([*NAMES, ALIAS]), branch=st.sampled_from(BRANCHES))
    def submit(self, name: str, branch: str) -> None:
        resolved = self.source.resolve(name, branch)
        held = self.database.models.find_model(resolved.model_id)
        try:
            task = self.deployment.submit(name, branch)
        except ModelExistsError as refused:
            assert held is not None
            assert held.status is ModelStatus.READY
            assert refused.models == {held.model_id: held.resolved.name}  # noqa: PT017 - the other ways are looked at as well
        except ImportInProgressError as refused:
            assert held is not None
            assert held.status in (ModelStatus.IMPORTING, ModelStatus.WITHDRAWING)
            assert refused.task_id == held.task_id  # noqa: PT017 - as above
        except DeletionInProgressError as refused:
            assert held is not None
            assert held.status is ModelStatus.DELETING
            assert refused.model_id == held.model_id  # noqa: PT017 - as above
        else:
            assert held is None or held.status is ModelStatus.FAILED
            assert task.model_ids == (resolved.model_id,)

    @rule(name=st.sampled_from([*NAMES, ALIAS]), branch=st.sampled_from(BRANCHES), troubles=TROUBLES)
    def submit_in_trouble(self, name: str, branch: str, troubles: list[Trouble]) -> None:
        with self.endure(troubles):
            self.deployment.submit(name, branch)

    @rule(which=ANY)
    def post(self, which: int) -> None:
        with self.endure([]):
            self.deployment.post(ARCHIVES[which % len(ARCHIVES)])

    @rule(which=ANY, troubles=TROUBLES)
    def post_in_trouble(self, which: int, troubles: list[Trouble]) -> None:
        with self.endure(troubles):
            self.deployment.post(ARCHIVES[which % len(ARCHIVES)])

    @rule(which=ANY, key=st.sampled_from(KEYS), times=st.integers(1, 2))
    def drop(self, which: int, key: str, times: int) -> None:
        archive = ARCHIVES[which % len(ARCHIVES)]
        if self.archives.find_archive(key) not in (None, (len(archive), md5(archive).hexdigest())):
            self.replaced.add(key)
        etag = self.archives.put_archive(key, archive)
        self.waiting += [Envelope(Arrival(key, len(archive), etag, str(next(self.sequencer))))] * times

    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        tasks = self.list_tasks()
        if tasks:
            self.cancel_task(tasks[which % len(tasks)].id)

    @rule(which=ANY, troubles=TROUBLES)
    def cancel_in_trouble(self, which: int, troubles: list[Trouble]) -> None:
        tasks = self.list_tasks()
        if tasks:
            with self.endure(troubles):
                self.cancel_task(tasks[which % len(tasks)].id)

    @rule(
        name=st.sampled_from(NAMES),
        branch=st.sampled_from(BRANCHES),
        others=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(BRANCHES)), max_size=2),
        operation=st.sampled_from(["upload_part", "replace_upload", "record_offset"]),
        at=st.integers(1, 5),
        kind=st.sampled_from([Kind.CANCEL, Kind.RESUBMIT]),
    )
    def end_during_a_large_file(
        self, name: str, branch: str, others: list[tuple[str, str]], operation: str, at: int, kind: Kind
    ) -> None:
        """Its content may be that of the imports that are submitted after it."""
        with self.endure([]):
            task = self.deployment.submit(name, branch)
            for envelope in self.take_transfers(task):
                self.hand_over(envelope, [Trouble(kind, at, Effect.ALL, operation)])
        for other in others:
            with self.endure([]):
                self.deployment.submit(*other)

    def take_transfers(self, task: Task) -> list[Envelope]:
        """Deliver what waits until the task is planned. Return the messages of its first group: of a large file."""
        while self.deployment.find_task(task.id).stage is Stage.PLANNING:
            self.deliver_one(0, [])
        self.receive()
        taken = [
            envelope
            for envelope in self.waiting
            if isinstance(envelope.content, TransferFiles)
            and (envelope.content.task_id, envelope.content.group) == (task.id, 0)
        ]
        self.waiting = [envelope for envelope in self.waiting if envelope not in taken]
        return taken

    def cancel_task(self, task_id: str) -> None:
        pending = self.deployment.find_task(task_id).status is TaskStatus.PENDING
        if pending:
            self.cancelled.add(task_id)
        try:
            self.deployment.finisher.cancel(task_id)
        except TaskEndedError:
            assert not pending or self.trouble.hits

    @rule(which=ANY)
    def delete(self, which: int) -> None:
        with self.endure([]):
            self.delete_one(which)

    @rule(which=ANY, troubles=TROUBLES)
    def delete_in_trouble(self, which: int, troubles: list[Trouble]) -> None:
        with self.endure(troubles):
            self.delete_one(which)

    def delete_one(self, which: int) -> None:
        models = [m for m in self.list_models() if m.status in (ModelStatus.READY, ModelStatus.DELETING)]
        if models:
            self.delete_model(models[which % len(models)].model_id)

    def delete_model(self, model_id: str) -> None:
        self.deleted.add(model_id)
        gone = self.deployment.deleter.delete_model(model_id, self.deployment.remaining)
        found = self.database.models.find_model(model_id)
        assert found is None or not gone or self.trouble.hits

    # What the queues and functions do

    @rule(which=ANY)
    def deliver(self, which: int) -> None:
        self.deliver_one(which, [])

    @rule(which=ANY, troubles=TROUBLES)
    def deliver_in_trouble(self, which: int, troubles: list[Trouble]) -> None:
        self.deliver_one(which, troubles)

    @rule(which=ANY, more=st.booleans())
    def duplicate(self, which: int, more: bool) -> None:
        """By whoever sent it, or by SQS, which then counts one delivery more."""
        self.receive()
        if self.waiting:
            envelope = self.waiting[which % len(self.waiting)]
            self.waiting.append(self.count_delivery(envelope) if more else envelope)

    @rule(which=ANY)
    def lose(self, which: int) -> None:
        self.receive()
        if self.waiting:
            self.waiting.pop(which % len(self.waiting))

    @rule()
    def deliver_all(self) -> None:
        self.deliver_waiting()

    @rule()
    def sweep(self) -> None:
        self.deployment.sweeper.sweep_stale(self.deployment.remaining)

    @rule(troubles=TROUBLES)
    def sweep_in_trouble(self, troubles: list[Trouble]) -> None:
        with self.endure(troubles):
            self.deployment.sweeper.sweep_stale(self.deployment.remaining)

    def receive(self) -> None:
        """All that is due comes to those that wait; if nothing does, time passes until something is."""
        if not self.waiting and self.queue.next_due is not None:
            self.clock.now = max(self.clock.now, self.queue.next_due)
        for message in self.deployment.receive():
            assert message.attempt <= MAX_ATTEMPTS, "at most three retries"
            self.waiting.append(Envelope(message))

    def deliver_one(self, which: int, troubles: list[Trouble]) -> None:
        self.receive()
        if self.waiting:
            envelope = self.waiting.pop(which % len(self.waiting))
            if not self.hand_over(envelope, troubles):
                self.waiting.append(self.count_delivery(envelope))

    def deliver_waiting(self) -> None:
        """Until nothing is due."""
        for _ in range(100):
            self.waiting += map(Envelope, self.deployment.receive())
            if not self.waiting:
                return
            self.hand_over(self.waiting.pop(0), None)
        raise AssertionError("messages never end")

    def count_delivery(self, envelope: Envelope) -> Envelope:
        if not isinstance(envelope.content, Arrival):
            self.suffered[envelope.content.task_id] += 1
        return Envelope(envelope.content, min(envelope.deliveries + 1, MAX_RECEIVES + 1))

    def hand_over(self, envelope: Envelope, troubles: list[Trouble] | None) -> bool:
        """What a worker function does; False if SQS is to deliver the message again. Without troubles (None) it may
        run while another one is held up.
        """
        if troubles is None:
            self.run_function(envelope)
            return True
        done = False
        with self.endure(troubles):
            self.run_function(envelope)
            done = True
        return bool(done)

    def run_function(self, envelope: Envelope) -> None:
        content = envelope.content
        if isinstance(content, Arrival):
            self.clock.now += 1
            task_id = self.deployment.arrivals.record_arrival(
                content.key, size=content.size, etag=content.etag, event_id=content.sequencer
            )
            assert task_id is not None
            content = AcceptArchive(task_id=task_id)
        before, self.current = self.current, content
        try:
            if envelope.deliveries > MAX_RECEIVES:
                self.deployment.runner.record_crash(content)
            else:
                self.deployment.deliver(content, deliveries=envelope.deliveries)
        finally:
            self.current = before
            if before is None and self.trouble.hits:
                self.suffered[content.task_id] += 1

    @contextmanager
    def endure(self, troubles: list[Trouble]) -> Iterator[None]:
        """A function's life, which may end early; what its caller sees must be something that is told."""
        with self.trouble.plan(troubles):
            try:
                yield
            except KilledError:
                assert Kind.KILL in self.trouble.hits
            except (StorageUnavailableError, SourceUnavailableError, RateLimitedError):
                assert self.trouble.hits
            except (ModelExistsError, ImportInProgressError, DeletionInProgressError, ModelNotFoundError):
                pass
            self.trouble.hits.clear()

    def act_meanwhile(self, kind: Kind) -> None:
        """Others' doings, all within the time that a held up function still has to live."""
        message = self.current
        if kind is Kind.TAKE_OVER:
            self.clock.now += 400
            self.deployment.sweeper.sweep_stale(lambda: 300.0)
            self.deliver_waiting()
        if message is None:
            return
        if kind is Kind.DUPLICATE:
            self.run_function(Envelope(message))
        if kind in (Kind.CANCEL, Kind.RESUBMIT):
            self.cancel_task(message.task_id)
        if kind is Kind.DELETE:
            for model in self.database.models.find_models(self.deployment.find_task(message.task_id).model_ids):
                if model.status is ModelStatus.READY:
                    self.delete_model(model.model_id)
        if kind is Kind.RESUBMIT:
            self.submit_again(message.task_id)

    def submit_again(self, task_id: str) -> None:
        for model in self.database.models.find_models(self.deployment.find_task(task_id).model_ids):
            if model.resolved.source is Source.HUGGINGFACE and model.resolved.prefix not in self.vanished:
                with suppress(ModelExistsError, ImportInProgressError, DeletionInProgressError):
                    self.deployment.submit(model.resolved.name, model.resolved.commit)
        self.deliver_waiting()

    # What must hold

    def list_tasks(self) -> list[Task]:
        """Oldest first."""
        return list(reversed(self.database.tasks.list_tasks(limit=10_000).tasks))

    def list_models(self) -> list[Model]:
        model_ids = dict.fromkeys(model_id for task in self.list_tasks() for model_id in task.model_ids)
        return [model for model_id in model_ids for model in self.database.models.find_models([model_id])]

    def expect_files(self, model: Model) -> Files:
        if model.resolved.source is Source.HUGGINGFACE:
            return self.published[model.resolved.prefix]
        archive = self.deployment.find_task(model.task_id).archive
        assert archive is not None
        return ZIP_BY_ETAG[archive.etag or ""].models[model.resolved.root.rstrip("/")]

    def may_be_seen(self, model: Model) -> bool:
        if model.status is ModelStatus.IMPORTING:
            return self.deployment.find_task(model.task_id).stage is Stage.PUBLISHING
        return model.status is not ModelStatus.FAILED

    @invariant()
    def what_is_visible_is_published(self) -> None:
        whole: Files = {}
        manifests: set[str] = set()
        required: set[str] = set()
        for model in self.list_models():
            if self.may_be_seen(model):
                keys = {model.resolved.prefix + path: body for path, body in self.expect_files(model).items()}
                manifest = manifest_key(model.model_id)
                whole |= keys
                manifests.add(manifest)
                if model.status is ModelStatus.READY:
                    required |= {*keys, manifest}
        visible = {key for key in self.store.keys if not key.startswith(("inspections/", "staging/"))}
        assert visible <= {*whole, *manifests}, "nothing else can be seen"
        assert required <= visible, "a READY model is whole"
        for key in visible & set(whole):
            assert self.deployment.read(key) == whole[key], "every byte is its source's"

    @invariant()
    def manifests_tell_what_is_there(self) -> None:
        for model in self.list_models():
            if model.status is ModelStatus.READY:
                files = self.expect_files(model)
                manifest = json.loads(self.deployment.read(manifest_key(model.model_id)))
                told = {file["path"]: (file["size"], file["sha256"]) for file in manifest["files"]}
                assert told == {path: (len(body), sha256(body).hexdigest()) for path, body in files.items()}
                assert manifest["task_id"] == model.task_id
                assert (model.files, model.size) == (len(files), sum(map(len, files.values())))

    @invariant()
    def one_task_holds_a_model(self) -> None:
        models = {model.model_id: model for model in self.list_models()}
        for task in self.list_tasks():
            if task.status is not TaskStatus.FAILED:
                wanted = ModelStatus.READY if task.status is TaskStatus.DONE else ModelStatus.IMPORTING
                for model_id in task.model_ids if task.status is TaskStatus.PENDING else self.list_kept(task):
                    assert (models[model_id].task_id, models[model_id].status) == (task.id, wanted)

    def list_kept(self, task: Task) -> list[str]:
        """Of the models that a task brought in those that nobody wanted to delete."""
        return [model_id for model_id in task.model_ids if model_id not in self.deleted]

    @invariant()
    def progress_is_not_overstated(self) -> None:
        for task in self.list_tasks():
            progress = task.progress
            assert 0 <= progress.files_done <= progress.files_total
            assert 0 <= progress.bytes_done <= progress.bytes_total
            assert progress.bytes_reused <= progress.bytes_done
            if task.status is TaskStatus.DONE:
                assert (progress.files_done, progress.bytes_done) == (progress.files_total, progress.bytes_total)

    @invariant()
    def no_step_raises_what_nobody_foresaw(self) -> None:
        assert self.deployment.unexpected == []

    # The end

    def teardown(self) -> None:
        try:
            self.settle()
            for task in self.list_tasks():
                self.check_end(task)
            self.check_outcomes()
            self.check_duplicates()
            self.check_submitting_again()
            self.check_content_of_ready_models()
        finally:
            self.patches.close()

    def settle(self) -> None:
        """No more trouble: all that waits arrives, and the sweep does the rest."""
        for envelope in self.waiting:
            self.run_function(envelope)
        self.waiting = []
        self.deployment.sweep_until_quiet()
        self.deployment.submitted[:] = [task.id for task in self.list_tasks()]
        self.deployment.check_promises({m.resolved.prefix: self.expect_files(m) for m in self.list_models()})
        self.what_is_visible_is_published()
        self.manifests_tell_what_is_there()
        self.one_task_holds_a_model()
        self.progress_is_not_overstated()
        self.no_step_raises_what_nobody_foresaw()
        assert all(model.status in (ModelStatus.READY, ModelStatus.FAILED) for model in self.list_models())
        assert self.archives.uploads == []

    def check_end(self, task: Task) -> None:
        """It ended, and if it failed then for a reason that was given."""
        if task.error is None:
            assert task.status is TaskStatus.DONE
            return
        assert task.error.detail
        match task.error.type:
            case "import-cancelled":
                given = task.id in self.cancelled
            case "retries-exhausted":
                given = self.suffered[task.id] >= MAX_ATTEMPTS
            case "step-crashed":
                given = self.suffered[task.id] >= MAX_RECEIVES
            case "content-mismatch" | "outage":
                given = self.suffered[task.id] >= 2
            case "revision-not-found":
                models = self.database.models.find_models(task.model_ids)
                # The record of a model that was deleted no longer says what has vanished.
                given = any(m.resolved.prefix in self.ever_vanished for m in models) or (
                    bool(self.ever_vanished) and not models and self.deleted >= set(task.model_ids)
                )
            case "archive-replaced":
                given = task.archive is not None and task.archive.key in self.replaced
            case "model-exists" | "import-in-progress" | "deletion-in-progress":
                given = task.source is Source.LOCAL
            case "import-stalled":
                given = task.sweeps >= 8
            case _:
                given = False
        assert given, f"{task.error} after {self.suffered[task.id]} troubles"

    def check_outcomes(self) -> None:
        """Whoever dropped an archive reads beside it how its task ended."""
        latest = {task.archive.key: task for task in self.list_tasks() if task.archive is not None}
        for key in latest.keys() & set(KEYS):
            outcome = self.archives.outcomes[f"outcomes/{key}.json"]
            assert (outcome["id"], outcome["task_status"]) == (latest[key].id, latest[key].status)

    def check_duplicates(self) -> None:
        """Every message that ever was, once more."""
        before = self.describe()
        for message in list(self.deployment.delivered.values()):
            self.deployment.deliver(message)
            self.deployment.deliver(message, deliveries=2)
            self.deployment.runner.record_crash(message)
        assert len(self.queue) == 0
        assert self.describe() == before

    def describe(self) -> object:
        tasks = [(t.id, t.status, t.stage, t.progress, t.error, t.model_ids) for t in self.list_tasks()]
        models = [(m.model_id, m.status, m.task_id, m.files, m.size) for m in self.list_models()]
        objects = {key: self.deployment.read(key) for key in self.store.keys}
        # A model that was deleted is told to be so from then on.
        outcomes = {
            key: [entry for entry in outcome["models"] if entry.get("model_id") not in self.deleted]
            for key, outcome in self.archives.outcomes.items()
        }
        return tasks, models, objects, self.archives.keys, outcomes

    def check_submitting_again(self) -> None:
        for model in self.list_models():
            now = self.database.models.find_model(model.model_id)
            if now is None or now.status is not ModelStatus.FAILED:
                continue
            failed = self.deployment.find_task(now.task_id)
            if now.resolved.source is Source.HUGGINGFACE:
                if now.resolved.prefix in self.vanished:
                    continue
                again = self.deployment.submit(now.resolved.name, now.resolved.commit)
            else:
                assert failed.archive is not None
                body = next(a for a in ARCHIVES if md5(a).hexdigest() == failed.archive.etag)
                try:
                    again = self.deployment.post(body)
                except ModelExistsError:
                    continue
            self.check_reuse(failed, again)

    def check_reuse(self, failed: Task, again: Task) -> None:
        left = self.list_left(failed)
        read = Counter(self.source.bytes_read)
        verified = [record for record in self.list_records(failed) if record.sha256 is not None]
        recent = self.clock.now - failed.created_at.timestamp() < reuse.STAGED_BLOB_SECONDS
        self.deployment.sweep_until_quiet()
        assert self.deployment.find_task(again.id).status is TaskStatus.DONE
        self.settle()
        records = {record.file.path: record for record in self.list_records(self.deployment.find_task(again.id))}
        # What is found by its digest may have been found in a model that was deleted.
        for record in verified if recent and not self.deleted else []:
            if is_found_again(record):
                assert records[record.file.path].reused, f"{record.file.path} was verified already"
        for digest, size in left.items():
            paths = {record.file.path for record in records.values() if str(record.file.digest) == digest}
            newly_read = sum(self.source.bytes_read[path] - read[path] for path in paths)
            assert newly_read <= size, "what is recorded is not read again"

    def list_left(self, failed: Task) -> dict[str, int]:
        """Return the bytes that are left of the uploads that the next import continues, by digest."""
        if failed.plan_id is None:
            return {}
        uploads = self.database.segments.list_uploads(failed.plan_id)
        unfinished = {upload_id for _, upload_id in self.store.list_uploads("")}
        digests = {str(record.file.digest) for record in self.list_records(failed)}
        entries = {digest: self.database.content.find_kept_upload(digest) for digest in digests}
        kept = {digest: uploads.get(entry.key) for digest, entry in entries.items() if entry is not None}
        return {
            digest: upload.size - upload.offset
            for digest, upload in kept.items()
            if upload is not None and upload.can_be_taken_over and upload.upload_id in unfinished
        }

    def check_content_of_ready_models(self) -> None:
        """It is imported under another name from what is stored, while the models are deleted one after the other."""
        ready = [model for model in self.list_models() if model.status is ModelStatus.READY]
        for number, model in enumerate(ready):
            files, name = self.expect_files(model), f"org/copy-{number}"
            self.source.models[name] = {"main": files}
            copy = self.deployment.submit(name)
            self.deployment.run()
            task = self.deployment.find_task(copy.id)
            assert task.status is TaskStatus.DONE
            # Of a model of an archive, the digests of small files are CRC-32, which does not identify content.
            small = model.resolved.source is Source.LOCAL
            stored = [len(body) for body in files.values() if len(body) > LARGE or not small]
            assert task.progress.bytes_reused >= sum(stored), f"{model.resolved.name} has this content"
            for model_id in (model.model_id, *copy.model_ids):
                assert self.deployment.deleter.delete_model(model_id, self.deployment.remaining)

    def list_records(self, task: Task) -> list[FileRecord]:
        groups = self.database.files.list_groups(task.plan_id) if task.plan_id is not None else ()
        return [record for group in groups for record in group.records]


def is_found_again(record: FileRecord) -> bool:
    """A small file of an archive is read anyway, and stored sooner than it is looked for."""
    return record.file.digest.algorithm.identifies or record.file.size >= LARGE // 2


TestPromises = pytest.mark.slow(Promises.TestCase)
TestPromises.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
