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


class PlanImport(_Message):
    kind: Literal["plan_import"] = "plan_import"


class TransferFiles(_Message):
    """`paths`: files of the task, to be moved by one function. `restarts` counts files begun anew from byte 0."""

    kind: Literal["transfer_files"] = "transfer_files"
    paths: tuple[str, ...] = Field(min_length=1)
    restarts: int = Field(default=0, ge=0)


class PublishModels(_Message):
    """`after`: the last path that an earlier function has laid out already, in path order."""

    kind: Literal["publish_models"] = "publish_models"
    after: str = ""


type Message = PlanImport | TransferFiles | PublishModels

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(body: str | bytes) -> Message:
    """Raises pydantic.ValidationError for anything but a message of this version."""
    return _ADAPTER.validate_json(body)
