"""What the pipeline needs of the world. Adapters and fakes implement these; each has one contract suite."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, Self

from modelhaul.messages import Message
from modelhaul.model import (
    Blob,
    Checkpoint,
    FileRecord,
    FileResult,
    GateReport,
    Model,
    ModelError,
    ModelPage,
    ObjectRange,
    Part,
    PickleOpinion,
    ResolvedModel,
    SkippedDirectory,
    Source,
    SourceFile,
    UploadTicket,
)
from modelhaul.task import Event, Progress, Stage, Task, TaskError, TaskPage, TaskStatus

type Clock = Callable[[], float]
"""Epoch seconds."""


class ByteStream(Protocol):
    """An open answer of a source, read in order by one thread.

    Any thread may close it at any time, which gives the rest up and ends a read under way as a broken connection.
    """

    offset: int
    """Where in the file its first byte belongs. It is below what was asked for if the source ignores ranges."""
    etag: str | None
    ranged: bool
    """False if the source answered a request for a range with the whole file, which then comes to its end."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills at most `len(buffer)` bytes and returns how many (0 only at the end of what was asked for).

        Raises SourceUnavailableError when the connection breaks or ends early, StalledTransferError when
        nothing comes, UnexpectedAnswerError when more comes than was asked for.
        """

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...


class ModelResolver(Protocol):
    """What finds a model by its name."""

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        """Raises InvalidReferenceError, ModelNotFoundError, RevisionNotFoundError, AccessRequiredError,
        ModelDisabledError, CredentialsRefusedError, RateLimitedError (with `retry_after`), SourceUnavailableError.
        """


class ModelSource(Protocol):
    """Where models come from. It does not retry and does not wait: that is the pipeline's to decide.

    Every method raises RateLimitedError (with `retry_after`) and SourceUnavailableError.
    """

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        """All files of the model's commit, whatever its selection, each with the digest that the source publishes and a
        path below the model's root; and what is recorded only, by its kind.

        Raises what ModelResolver.resolve raises, FileMissingError, ListingTooLongError, SourceQuotaError,
        ArchiveRefusedError, ArchiveReplacedError.
        """

    def announce_files(self, files: Sequence[SourceFile]) -> None:
        """Some of these will be opened soon: a source that must ask for their addresses may ask for many at once."""

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        """Opens bytes `start` (included) to `end` (excluded, > start) of the file.

        Raises FileMissingError, FileTooLargeError, AccessRequiredError, SourceQuotaError, UntrustedHostError,
        UnexpectedAnswerError,
        ArchiveRefusedError, ArchiveReplacedError.
        """

    def locate(self, model: ResolvedModel, file: SourceFile) -> ObjectRange | None:
        """Where in S3 the file's bytes lie as they are, so that S3 can copy them; None if they do not.

        Raises ArchiveRefusedError, ArchiveReplacedError.
        """


class ObjectStore(Protocol):
    """The models bucket. Every method raises StorageUnavailableError when S3 does not do it after its own retries."""

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        """Stores an object that fits in memory, which S3 checks against `sha256` (hex). Returns the ETag."""

    def create_upload(self, key: str) -> str:
        """Starts a multipart upload and returns its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        """Uploads a part, which S3 checks against `crc32`. Raises UploadGoneError."""

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        """Has S3 copy the range, which may be another bucket's, as a part. `crc32` is what its bytes have; S3 holds
        them against it when the upload is completed.

        Raises UploadGoneError, ArchiveReplacedError if the source is gone or its ETag is not `source.etag`.
        """

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        """Makes the object of exactly these parts and returns its ETag.

        If the upload is gone and an object of `size` bytes is there, that is this upload, completed by a call
        whose reply was lost. Raises UploadGoneError if it is gone, or a part is not the one given; ValueError
        unless the parts are 1..n in order, n <= 10,000, and all but the last have 5 MiB or more.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """An upload that is not there is aborted already."""

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(key, upload id) of all unfinished multipart uploads below `prefix`."""

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        """Copies inside the bucket, large objects in parallel parts, and returns the new ETag.

        Raises ObjectGoneError if the source is missing or its ETag is not `etag`; leaves no unfinished upload.
        """

    def read(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (excluded) of an object, fewer if it ends before. Raises ObjectGoneError."""

    def find_object(self, key: str) -> tuple[int, str] | None:
        """The object's (size in bytes, ETag), None if there is none."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects, in batches; missing ones are deleted already."""

    def sign_read(self, key: str, *, seconds: int) -> str:
        """An address from which anybody can GET the object for so long, whole or by ranges. It is not looked for."""


class ArchiveStore(Protocol):
    """The incoming bucket. Every method raises StorageUnavailableError."""

    bucket: str

    def find_archive(self, key: str) -> tuple[int, str] | None:
        """The archive's (size in bytes, ETag), None if there is none."""

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> ByteStream:
        """Opens bytes `start` to `end` (excluded, > start). A connection that breaks is mended by asking for the rest,
        at most three times in a row.

        Raises ArchiveReplacedError if the object is gone or its ETag is not `etag`; so do the stream's reads.
        """

    def put_archive(self, key: str, body: bytes) -> str:
        """Stores an archive that fits in memory and returns its ETag."""

    def delete_archive(self, key: str) -> None:
        """One that is not there is deleted already."""

    def open_upload(self, key: str, size: int, *, seconds: float) -> UploadTicket:
        """Leave for somebody else to store exactly `size` bytes at `key` within `seconds`: one PUT up to 5 GB, at
        most 1,000 parts above.
        """

    def abort_uploads(self, key: str) -> None:
        """Ends unfinished multipart uploads of exactly this key."""

    def write_outcome(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Stores `outcome` as JSON at `outcomes/{key}.json`, unless one is there whose `created_at` (ISO 8601 text,
        UTC) is later, or one of the same time that has ended (`task_status`) while this one is PENDING. A key too long
        for that (over 1,010 bytes) gets none.
        """


class MessageQueue(Protocol):
    """The work queues; the message's type says which one."""

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        """Sends all, at the earliest after `delay` seconds (at most 900). May deliver twice.

        Raises StorageUnavailableError; some may then have been sent.
        """


class EventBus(Protocol):
    def publish(self, event: Event) -> None:
        """Hands the event to all who listen, at least once. Raises StorageUnavailableError; it may then have come
        through.
        """


class Ledger(Protocol):
    """Tasks, models, files and blobs. Every write is atomic and safe to repeat after a lost reply.

    Every method raises StorageUnavailableError. A task is *watched* from its claim until `unwatch_task`.
    """

    def claim_import(self, task: Task, models: Sequence[Model]) -> None:
        """Writes the task (whose `model_ids` are the models') and claims the models for it, all or nothing.
        A FAILED model can be taken over. At most 90 models.

        Raises ModelExistsError with all that are READY; if none is, for the first that is not free
        ImportInProgressError, if another task is bringing it in or it is WITHDRAWING, or DeletionInProgressError.
        Of simultaneous claims exactly one succeeds. Repeating one's own claim succeeds.
        """

    def record_task(self, task: Task) -> None:
        """Writes a task that claims nothing yet; one with this id that is there already is left as it is."""

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        """Moves a PENDING task from UPLOADING to INSPECTING and notes its archive's size and ETag; a task at any
        other stage is left alone. Returns the task as it then is.
        """

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        """Moves a PENDING task from INSPECTING to PLANNING with these models, claimed as by `claim_import`, and these
        skipped directories; all or nothing. A task at any other stage is left alone. Returns the task as it then is.

        Raises as `claim_import`. Repeating one's own claim succeeds.
        """

    def find_task(self, task_id: str) -> Task | None:
        """Strongly consistent; None for an id of any shape that is not there."""

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """A page of at most `limit` tasks, newest first, eventually consistent. A page may be short, or empty, and
        still have a cursor. Raises InvalidReferenceError for a cursor that it did not give.
        """

    def find_model(self, model_id: str) -> Model | None: ...

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        """Those that are there, in the order asked for, strongly consistent. At most 90."""

    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        """A page of at most `limit` READY models, newest first, eventually consistent; `name`: those in whose name it
        is, in any case of letters. A page may be short, or empty, and still have a cursor. Raises
        InvalidReferenceError for a cursor that it did not give.
        """

    def lease_deletion(self, model_id: str, *, owner: str, now: float, until: float) -> Model | None:
        """Moves a READY or FAILED model to DELETING and leases it to `owner`, or leases one that is DELETING already.

        None if it is unknown, IMPORTING or WITHDRAWING, or another owner's lease runs at `now`.
        """

    def remove_model(self, model_id: str, *, owner: str) -> None:
        """Removes the record of a DELETING model, so that the model can be claimed again; without effect if the lease
        is another's.
        """

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        """DELETING models whose lease does not run at `now`. Eventually consistent."""

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        """Records the planned files; one that is there already is left as it is. What is not
        followed is done at once.
        """

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        """All files of the task in path order, strongly consistent."""

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        """Those of `paths` that are recorded, strongly consistent, in no order."""

    def start_stage(self, task_id: str, stage: Stage, *, check_at: float, totals: Progress | None = None) -> bool:
        """Moves a PENDING task forward to `stage` (TRANSFERRING with the totals, VERIFIED or PUBLISHING), and notes
        when TRANSFERRING began.

        A task that is at that stage or further is left alone. Of any number of calls one is told True: that it moved
        the task.
        """

    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        """Has the sweep look no sooner than then (and sets its count, if given), for a task that is still watched.

        Without effect if it looks later already.
        """

    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        """The file, leased to `owner`; None if it is done, unknown, or another owner's lease runs at `now`."""

    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        """Raises LeaseLostError."""

    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        """Gives the lease back; without effect if it is another's."""

    def save_checkpoint(
        self,
        task_id: str,
        path: str,
        checkpoint: Checkpoint | None,
        *,
        owner: str,
        until: float,
        check_at: float,
    ) -> None:
        """Stores (or with None discards) the checkpoint, renews the lease, moves the task's `bytes_done` by the
        difference of offsets, and postpones the sweep.

        Raises LeaseLostError if the lease is another's, TaskEndedError if the task is no longer PENDING.
        """

    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        """Marks up to 90 files as done, drops their checkpoints and leases, and counts them in the task; files
        that were done before, or never planned, are not counted. Returns the task's progress after it.

        Raises TaskEndedError if the task is no longer PENDING.
        """

    def finish_import(
        self,
        task_id: str,
        *,
        totals: Mapping[str, tuple[int, int]],
        check_at: float,
        gates: Mapping[str, GateReport] = MappingProxyType({}),
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task DONE: the models in `totals` become READY, those in `failed` FAILED with their shortened error,
        so that another import can claim them; all or nothing. Together these are the task's models.

        `totals`: (files, bytes) of each READY model, by its id; `gates`: what the gate found in it. False if the task
        has ended otherwise before.
        """

    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task FAILED with `error`, and its models, if it has any, FAILED, or WITHDRAWING if the task was
        PUBLISHING; all or nothing. A model has its own error of `failed`, else the task's, shortened.

        False if the task has ended before.
        """

    def release_models(self, task_id: str) -> None:
        """What the task had published is removed: its models go from WITHDRAWING to FAILED, and can be claimed."""

    def unwatch_task(self, task_id: str) -> None:
        """The task has ended and nothing is left to tidy up; without effect on a PENDING task."""

    def list_due(self, now: float, limit: int) -> list[Task]:
        """Watched tasks whose `check_at` is not after `now`, longest due first. Eventually consistent."""

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        """The stored contents with these digests (`sha256:…` or `git-sha1:…`), by digest; strongly consistent."""

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        """Records (digest, blob) pairs in the place of earlier ones. With `expires_at` they are forgotten then, and are
        found only where there is none that stays.
        """

    def forget_blob(self, digest: str, key: str) -> None:
        """Forgets the digest if it is recorded at `key`."""

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        """Forgets any number of (digest, key) pairs, as `forget_blob` does, of which most are not recorded."""


class PickleScanner(Protocol):
    """Another judge of pickles than the gate's own reader."""

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        """An opinion on each, in order, within about `seconds` for all. Each may be several, one behind the other.

        Raises nothing: what it cannot judge, or not in time, is UNVERIFIED.
        """


class SecretStore(Protocol):
    def read_secret(self, secret_id: str) -> str:
        """The secret's text. Raises CredentialsRefusedError if it is not there or not ours to read,
        StorageUnavailableError if there is no answer.
        """


class RateLimitStore(Protocol):
    """What all functions know of the sources' limits. Every method raises StorageUnavailableError."""

    def find_pause(self, limit: str) -> float:
        """Epoch seconds until which nothing is to be asked under this limit; 0 if there is no pause. Strongly
        consistent.
        """

    def record_pause(self, limit: str, until: float) -> None:
        """Without effect if a longer pause is recorded already."""


class Meter(Protocol):
    """Metrics for the person on call."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Adds `value` to the metric `name`; its unit is part of the catalog in `modelhaul.metrics`."""
