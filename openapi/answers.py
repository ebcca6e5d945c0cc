"""The bodies that the API answers with. The handlers' real answers are held against these by tests."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, SkipJsonSchema, models_json_schema
from pydantic_core import core_schema

from modelhaul.model import GateVerdict, ModelStatus, Source
from modelhaul.task import Stage, TaskStatus

Count = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0, description="bytes")]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class FieldAtFault(Answer):
    field: str
    message: str


class HeldModel(Answer):
    model_id: str
    name: str


class LackingDirectory(Answer):
    name: str
    lacks: list[str]


class Problem(Answer):
    """Problem details of RFC 9457."""

    type: str = Field(examples=["urn:modelhaul:problem:model-exists"])
    """Stable: programs may compare it."""
    title: str
    status: int | SkipJsonSchema[None] = None
    detail: str
    """What happened and what to do."""
    fields: list[FieldAtFault] | SkipJsonSchema[None] = None
    retry_after: int | SkipJsonSchema[None] = None
    """Seconds."""
    model_id: str | SkipJsonSchema[None] = None
    models: list[HeldModel] | SkipJsonSchema[None] = None
    """Those that are here already."""
    task_id: str | SkipJsonSchema[None] = None
    """The task that is bringing the model in."""
    task: str | SkipJsonSchema[None] = None
    """Its path."""
    reason: str | SkipJsonSchema[None] = None
    """Why the archive is refused, as a stable slug."""
    entry: str | SkipJsonSchema[None] = None
    """The archive's entry at fault."""
    directories: list[LackingDirectory] | SkipJsonSchema[None] = None


class TaskProgress(Answer):
    files_done: Count
    files_total: Count
    bytes_done: Bytes
    """Includes `bytes_reused`, and grows while a large file moves."""
    bytes_total: Bytes
    bytes_reused: Bytes
    """Copied inside S3, since the content was here already."""


class TaskFailure(Answer):
    type: str = Field(examples=["required-files-missing"])
    retryable: bool
    """Whether submitting again may help."""


class ModelResult(Answer):
    """A model of the task, or a directory of its archive that is none."""

    name: str
    status: ModelStatus | Literal["SKIPPED"]
    model_id: str | SkipJsonSchema[None] = None
    commit: str | SkipJsonSchema[None] = None
    location: str | SkipJsonSchema[None] = Field(default=None, examples=["s3://models-bucket/models/huggingface/gpt2/607a30d7/"])
    lacks: list[str] | SkipJsonSchema[None] = None


class TaskSummary(Answer):
    id: str
    model_tag: str = Field(examples=["bert-base-uncased@main"])
    task_status: TaskStatus
    source: Source
    created_at: datetime
    updated_at: datetime
    stage: Stage
    progress: TaskProgress
    error_msg: str | SkipJsonSchema[None] = None
    """What happened and what to do, if it FAILED."""
    error: TaskFailure | SkipJsonSchema[None] = None


class Task(TaskSummary):
    models: list[ModelResult]


class TaskList(Answer):
    tasks: list[TaskSummary]
    cursor: str | None
    """Asks for the tasks that follow; null at the end."""


class ScannedFile(Answer):
    path: str
    sha256: str


class GateReport(Answer):
    verdict: GateVerdict
    reasons: list[str]
    flags: list[str]
    """What a reader should know of: code, chat templates."""
    scanned: list[ScannedFile]


class ModelRecord(Answer):
    model_id: str
    name: str
    source: Source
    commit: str
    status: ModelStatus
    task_id: str
    created_at: datetime
    updated_at: datetime
    files: Count | SkipJsonSchema[None] = None
    size: Bytes | SkipJsonSchema[None] = None
    location: str | SkipJsonSchema[None] = None
    gate: GateReport | SkipJsonSchema[None] = None


class UploadStep(Answer):
    method: Literal["PUT", "POST", "DELETE"]
    url: str
    body: str | SkipJsonSchema[None] = None


class UploadPart(Answer):
    number: int
    method: Literal["PUT"]
    url: str
    start: int
    end: int
    """Excluded."""


class WholeUpload(Answer):
    """Up to 5 GB: one PUT."""

    method: Literal["PUT"]
    url: str


class PartsUpload(Answer):
    """Above: every part by PUT, then `complete`."""

    parts: list[UploadPart]
    complete: UploadStep
    abort: UploadStep


class Upload(Answer):
    task_id: str
    expires_at: datetime
    upload: WholeUpload | PartsUpload


class _AbsentIsNotNull(GenerateJsonSchema):
    """What has no value is left out of an answer: null is not its default."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


BODIES: tuple[type[Answer], ...] = (Problem, Task, TaskList, ModelRecord, Upload)


def describe_bodies() -> dict[str, Any]:
    """JSON Schemas by name, as the document's components."""
    _, schemas = models_json_schema(
        [(body, "validation") for body in BODIES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_AbsentIsNotNull,
    )
    found: dict[str, Any] = schemas["$defs"]
    return found
