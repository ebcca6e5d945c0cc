"""The bodies that the API answers with. The handlers' real answers are held against these by tests."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, SkipJsonSchema, models_json_schema
from pydantic_core import core_schema

from modelhaul.domain.files import FileKind
from modelhaul.domain.findings import FileVerdict, FindingKind, Severity
from modelhaul.domain.gate import GateVerdict, SecondOpinion
from modelhaul.domain.models import ModelStatus, Source
from modelhaul.domain.selection import Weights
from modelhaul.domain.tasks import Stage, TaskStatus

Count = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0, description="bytes")]


class ResponseBody(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class FieldAtFault(ResponseBody):
    field: str
    message: str


class HeldModel(ResponseBody):
    model_id: str
    name: str


class LackingDirectory(ResponseBody):
    name: str
    lacks: list[str]


class Problem(ResponseBody):
    """Problem details of RFC 9457."""

    type: str = Field(examples=["urn:modelhaul:problem:model-exists"])
    """Stable: programs may compare it."""
    title: str
    status: int | SkipJsonSchema[None] = None
    detail: str
    """What happened."""
    remedy: str | SkipJsonSchema[None] = None
    """What to do now."""
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


class TaskProgress(ResponseBody):
    files_done: Count
    files_total: Count
    bytes_done: Bytes
    """Includes `bytes_reused`, and grows while a large file moves."""
    bytes_total: Bytes
    bytes_reused: Bytes
    """Copied inside S3, since the content was here already."""
    bytes_per_second: Count | SkipJsonSchema[None] = None
    """How fast bytes came from the source, averaged since the first could move."""
    seconds_left: Count | SkipJsonSchema[None] = None
    """What the rest takes at that."""


class TaskFailure(ResponseBody):
    type: str = Field(examples=["required-files-missing"])
    retryable: bool
    """Whether submitting again may help."""
    remedy: str | SkipJsonSchema[None] = None
    """What to do now."""


class ModelFailure(TaskFailure):
    detail: str
    """What happened and what to do: at most 1,000 characters."""


class Selection(ResponseBody):
    """What was asked for, where it is not all of the model."""

    allow_patterns: list[str]
    ignore_patterns: list[str]
    weights: Weights


class ModelResult(ResponseBody):
    """A model of the task, or a directory of its archive that is none."""

    name: str | SkipJsonSchema[None] = None
    status: ModelStatus | Literal["SKIPPED", "DELETED"]
    model_id: str | SkipJsonSchema[None] = None
    commit: str | SkipJsonSchema[None] = None
    location: str | SkipJsonSchema[None] = Field(
        default=None, examples=["s3://models-bucket/models/huggingface/gpt2/607a30d7/"]
    )
    error: ModelFailure | SkipJsonSchema[None] = None
    """Of a FAILED model, which a DONE task may have beside others that are READY; until another task claims it."""
    lacks: list[str] | SkipJsonSchema[None] = None


class TaskSummary(ResponseBody):
    id: str
    model_tag: str = Field(examples=["bert-base-uncased@main"])
    task_status: TaskStatus
    source: Source
    created_at: datetime
    updated_at: datetime
    stage: Stage
    progress: TaskProgress
    selection: Selection | SkipJsonSchema[None] = None
    error_msg: str | SkipJsonSchema[None] = None
    """What happened and what to do, if it FAILED."""
    error: TaskFailure | SkipJsonSchema[None] = None


class Task(TaskSummary):
    models: list[ModelResult]


class TaskList(ResponseBody):
    tasks: list[TaskSummary]
    cursor: str | None
    """Asks for the tasks that follow; null at the end."""


class ScannedFile(ResponseBody):
    path: str
    sha256: str


class Finding(ResponseBody):
    kind: FindingKind
    severity: Severity
    detail: str


class Inspection(ResponseBody):
    """What the content of a file was recognized as."""

    format: str = Field(examples=["safetensors"])
    verdict: FileVerdict
    reason: str | SkipJsonSchema[None] = None
    """Why it is not clean."""
    findings: list[Finding] | SkipJsonSchema[None] = None


class InspectedFile(Inspection):
    path: str


class ManifestGateReport(ResponseBody):
    verdict: GateVerdict
    second_opinion: SecondOpinion | None
    """Another scanner's, null if it was not asked."""
    reasons: list[str]
    flags: list[str]
    """What a reader should know: findings (`kind: path`), files that are missing (`incomplete`), were not parsed
    (`not-scanned`) or not published (`left-out`). A model's record has at most 100, 8 in an archive of many models; the
    manifest has all."""
    scanned: list[ScannedFile]
    """Files that loaders of pickles read. The manifest has all of them."""
    left_out: list[str]
    """Training state with findings, which no loader opens for inference: it was not published."""


class GateReport(ManifestGateReport):
    files: list[InspectedFile]
    """Up to 50, in an archive of many models 4, those first that are not clean. The manifest has all."""


class ModelRecord(ResponseBody):
    model_id: str
    name: str
    source: Source
    commit: str
    revision: str
    """What was asked for when the commit was found."""
    status: ModelStatus
    task_id: str
    created_at: datetime
    updated_at: datetime
    selection: Selection | SkipJsonSchema[None] = None
    files: Count | SkipJsonSchema[None] = None
    size: Bytes | SkipJsonSchema[None] = None
    location: str | SkipJsonSchema[None] = None
    gate: GateReport | SkipJsonSchema[None] = None
    error: ModelFailure | SkipJsonSchema[None] = None
    """Why its import failed, if it is FAILED."""


class ManifestFile(ResponseBody):
    path: str
    size: Bytes
    sha256: str
    source_digest: str = Field(examples=["git-sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"])
    """What its source published, and its bytes were held against."""
    inspection: Inspection | SkipJsonSchema[None] = None
    """Missing if `PicklePolicy` is off."""


class NotFollowed(ResponseBody):
    path: str
    kind: FileKind
    object: str
    """A symlink's blob, a submodule's commit."""


class Manifest(ResponseBody):
    version: Literal[1]
    model_id: str
    source: Source
    name: str
    revision: str
    commit: str
    selection: Selection | SkipJsonSchema[None] = None
    prefix: str
    """Where in the models bucket the files lie."""
    task_id: str
    gate: ManifestGateReport
    files: list[ManifestFile]
    not_followed: list[NotFollowed]


class WholeModel(ModelRecord):
    manifest_url: str | SkipJsonSchema[None] = None
    """An address of the manifest that holds for an hour."""
    manifest: Manifest | SkipJsonSchema[None] = None
    """Left out if it has more than 4 MB."""


class ModelList(ResponseBody):
    models: list[ModelRecord]
    cursor: str | None
    """Asks for the models that follow; null at the end."""


class UploadStep(ResponseBody):
    method: Literal["PUT", "POST", "DELETE"]
    url: str
    body: str | SkipJsonSchema[None] = None


class UploadPart(ResponseBody):
    number: int
    method: Literal["PUT"]
    url: str
    start: int
    end: int
    """Excluded."""


class WholeUpload(ResponseBody):
    """Up to 5 GB: one PUT."""

    method: Literal["PUT"]
    url: str


class PartsUpload(ResponseBody):
    """Above: every part by PUT, then `complete`."""

    parts: list[UploadPart]
    complete: UploadStep
    abort: UploadStep


class Upload(ResponseBody):
    task_id: str
    expires_at: datetime
    upload: WholeUpload | PartsUpload


class _AbsentIsNotNull(GenerateJsonSchema):
    """What has no value is left out of an answer: null is not its default."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


BODIES: tuple[type[ResponseBody], ...] = (Problem, Task, TaskList, ModelRecord, ModelList, WholeModel, Upload)


def describe_bodies() -> dict[str, Any]:
    """JSON Schemas by name, as the document's components."""
    _, schemas = models_json_schema(
        [(body, "validation") for body in BODIES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_AbsentIsNotNull,
    )
    found: dict[str, Any] = schemas["$defs"]
    return found
