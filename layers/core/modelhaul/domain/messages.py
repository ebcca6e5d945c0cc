"""Queue messages. Each carries its format's version: a message of another version is refused, not guessed at."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    """`attempt` counts from 1; a wait for a rate limit raises `waited` (seconds) instead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    task_id: str
    attempt: int = Field(default=1, ge=1)
    waited: float = Field(default=0, ge=0)


class AcceptArchive(_Message):
    """Find out which models are in the task's archive, and claim them."""

    kind: Literal["accept_archive"] = "accept_archive"


class PlanImport(_Message):
    kind: Literal["plan_import"] = "plan_import"


class TransferFiles(_Message):
    """`paths`: files of the task, to be moved by one function. `restarts` counts files begun anew from byte 0."""

    kind: Literal["transfer_files"] = "transfer_files"
    paths: tuple[str, ...] = Field(min_length=1)
    restarts: int = Field(default=0, ge=0)


class PublishModels(_Message):
    """`after`: the last path that an earlier function has laid out already, in path order. `resumed`: an earlier
    function has begun the inspection.
    """

    kind: Literal["publish_models"] = "publish_models"
    after: str = ""
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


class ObjectCreated(BaseModel):
    """S3's event of a stored object, as EventBridge puts it into ArchiveQueue; the key is not URL-encoded.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """

    id: str
    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    detail: _ObjectCreatedDetail


type Message = AcceptArchive | PlanImport | TransferFiles | PublishModels

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
_ARCHIVE_ADAPTER: TypeAdapter[AcceptArchive | ObjectCreated] = TypeAdapter(AcceptArchive | ObjectCreated)


def parse_message(body: str | bytes) -> Message:
    """Raises pydantic.ValidationError for anything but a message of this version."""
    return _ADAPTER.validate_json(body)


def parse_archive_message(body: str | bytes) -> AcceptArchive | ObjectCreated:
    """What ArchiveQueue holds. Raises pydantic.ValidationError for anything else."""
    return _ARCHIVE_ADAPTER.validate_json(body)
