"""Queue messages. Each has a format version; messages of other versions are rejected."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class FailureKind(StrEnum):
    STEP = "step"
    RATE_LIMIT = "rate_limit"
    OUTAGE = "outage"


class Failures(BaseModel):
    """The attempts since the last progress. All of them failed, the last one for the reason `kind`.

    `since`: end of the first one, in epoch seconds. `count`: their number. `outage_since` and `outages` are the same
    for those that failed because of an outage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    since: float
    count: int = Field(ge=1)
    outage_since: float | None = None
    outages: int = Field(default=0, ge=0)


class _Message(BaseModel):
    """`attempt` starts at 1. Waits for a rate limit or for the end of an outage increase only `failures`. `mismatches`
    are the expected and the found digests of files that were received with wrong content. `redelivered`: a function may
    have died with this message, or Lambda throttled it. It is not sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    task_id: str
    attempt: int = Field(default=1, ge=1)
    failures: Failures | None = None
    mismatches: tuple[tuple[str, str], ...] = ()
    redelivered: bool = Field(default=False, exclude=True)

    @property
    def is_first_attempt(self) -> bool:
        """Return whether no earlier attempt can have failed since the last progress."""
        return self.attempt == 1 and self.failures is None and not self.redelivered

    def mark_redelivered(self) -> Self:
        return self.model_copy(update={"redelivered": True})

    def reset_counts(self) -> Self:
        """Return the message that continues after progress: attempts and waits count from the start."""
        return self.model_copy(update={"attempt": 1, "failures": None, "redelivered": False})


class AcceptArchive(_Message):
    """Find and claim the models in the task's archive."""

    kind: Literal["accept_archive"] = "accept_archive"


class PlanImport(_Message):
    """List the files of the task's models, and start their transfer."""

    kind: Literal["plan_import"] = "plan_import"


class TransferFiles(_Message):
    """Transfer the files of one group of the task. `restarts` counts the restarts of a file from byte 0."""

    kind: Literal["transfer_files"] = "transfer_files"
    group: int = Field(ge=0)
    restarts: int = Field(default=0, ge=0)


class JoinTransfer(_Message):
    """Transfer segments of the large file in one group of the task, together with other functions.

    `returns` counts the attempts without progress.
    """

    kind: Literal["join_transfer"] = "join_transfer"
    group: int = Field(ge=0)
    returns: int = Field(default=0, ge=0)


class CopyFiles(_Message):
    """Copy the files of some groups to their published keys, except the paths `left_out`. `total`: the number of groups
    of the task that are copied.
    """

    kind: Literal["copy_files"] = "copy_files"
    groups: tuple[int, ...] = Field(min_length=1)
    total: int = Field(ge=1)
    left_out: tuple[str, ...] = ()


class PublishModels(_Message):
    """Check the task's models and start to publish them, or finish if their files are `copied`. `resumed`: an earlier
    function has started the inspection.
    """

    kind: Literal["publish_models"] = "publish_models"
    copied: bool = False
    resumed: bool = False


class _Object(BaseModel):
    key: str
    size: int = 0
    etag: str
    sequencer: str = ""


class _Bucket(BaseModel):
    name: str


class _ObjectCreatedDetail(BaseModel):
    bucket: _Bucket
    object: _Object
    requester: str | None = None


class ObjectCreated(BaseModel):
    """S3 event for a created object, as EventBridge sends it to ArchiveQueue. The key is not URL-encoded.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """

    id: str
    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    detail: _ObjectCreatedDetail


type Message = AcceptArchive | PlanImport | TransferFiles | JoinTransfer | CopyFiles | PublishModels

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
_ARCHIVE_ADAPTER: TypeAdapter[AcceptArchive | ObjectCreated] = TypeAdapter(AcceptArchive | ObjectCreated)


def parse_message(body: str | bytes) -> Message:
    """Parse a message of this version. Raises pydantic.ValidationError for any other body."""
    return _ADAPTER.validate_json(body)


def parse_archive_message(body: str | bytes) -> AcceptArchive | ObjectCreated:
    """Parse a message of ArchiveQueue. Raises pydantic.ValidationError for any other body."""
    return _ARCHIVE_ADAPTER.validate_json(body)
