"""Schemas of the API's response bodies. Tests check the handlers' responses against them."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, SkipJsonSchema, models_json_schema
from pydantic_core import core_schema

from modelhaul.domain.audit import AuditAction
from modelhaul.domain.files import FileKind
from modelhaul.domain.findings import FileVerdict, FindingKind, Severity
from modelhaul.domain.follows import FollowStatus
from modelhaul.domain.gate import GateVerdict, SecondOpinion
from modelhaul.domain.model_cards import BaseModelRelation
from modelhaul.domain.models import ModelStatus, Source
from modelhaul.domain.policy_results import PolicyDecision
from modelhaul.domain.read_keys import Scope
from modelhaul.domain.selection import Weights
from modelhaul.domain.tasks import Stage, TaskStatus
from modelhaul.policy.document import Effect


class ResponseBody(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class InvalidField(ResponseBody):
    field: str
    message: str


class ExistingModel(ResponseBody):
    model_id: str
    name: str


class IncompleteDirectory(ResponseBody):
    """A directory of an archive that is not a valid model."""

    name: str
    lacks: list[str]
    """The missing files."""


class Problem(ResponseBody):
    """Problem details (RFC 9457)."""

    type: str = Field(examples=["urn:modelhaul:problem:model-exists"])
    """The problem type. It is stable, so programs can compare it."""
    title: str
    """A short summary of the problem type."""
    status: int | SkipJsonSchema[None] = None
    """The HTTP status code."""
    detail: str
    """What happened, with the invalid value."""
    remedy: str | SkipJsonSchema[None] = None
    """What to do to resolve the problem."""
    rule_id: str | SkipJsonSchema[None] = None
    """With `policy-denied`, the rule that denies the import. Absent if the policy's default does."""
    matched: list[str] | SkipJsonSchema[None] = None
    """With `policy-denied`, the values for which the rule matches."""
    fields: list[InvalidField] | SkipJsonSchema[None] = None
    """The invalid fields or query parameters."""
    retry_after: int | SkipJsonSchema[None] = None
    """Seconds to wait before the request is sent again, as in the header Retry-After."""
    model_id: str | SkipJsonSchema[None] = None
    models: list[ExistingModel] | SkipJsonSchema[None] = None
    """The models that already exist."""
    task_id: str | SkipJsonSchema[None] = None
    """The task that is importing the model."""
    task: str | SkipJsonSchema[None] = None
    """The path of that task."""
    follow_id: str | SkipJsonSchema[None] = None
    """The follow of the same revision."""
    reason: str | SkipJsonSchema[None] = None
    """Why the archive was rejected, as a stable slug. With `policy-denied`, the reason of the rule."""
    entry: str | SkipJsonSchema[None] = None
    """The invalid entry of the archive."""
    directories: list[IncompleteDirectory] | SkipJsonSchema[None] = None
    """The directories of the archive, with their missing files."""


class TaskProgress(ResponseBody):
    files_done: NonNegativeInt
    """Number of files that are stored, verified and inspected."""
    files_total: NonNegativeInt
    """Number of files to import."""
    bytes_done: NonNegativeInt
    """Number of stored bytes, including `bytes_reused`. Grows while a large file is transferred."""
    bytes_total: NonNegativeInt
    """Number of bytes to import."""
    bytes_reused: NonNegativeInt
    """Number of bytes that were not transferred from the source, because they were already stored."""
    bytes_per_second: NonNegativeInt | SkipJsonSchema[None] = None
    """Average download rate from the source since the start of the transfer, in bytes per second."""
    seconds_left: NonNegativeInt | SkipJsonSchema[None] = None
    """Estimated remaining time of the transfer at this rate, in seconds. Absent while the task waits, and if no bytes
    were counted in the last 10 seconds."""


class TaskWaiting(ResponseBody):
    """The wait of a PENDING task for its next attempt, after a source or an AWS service did not respond, a rate limit
    was exceeded, or a step failed. The last wait, if several files wait. Absent if the task does not wait."""

    reason: str = Field(examples=["source-unavailable"])
    """The type of the last error. It is stable, so programs can compare it."""
    detail: str
    """The last error."""
    since: datetime
    """When the first attempt since the last progress failed."""
    attempt: int
    """Number of failed attempts since `since`."""
    next_attempt: datetime
    """When the next attempt starts."""


class TaskFailure(ResponseBody):
    type: str = Field(examples=["required-files-missing"])
    """The error type. It is stable, so programs can compare it."""
    retryable: bool
    """Whether a new import may succeed."""
    remedy: str | SkipJsonSchema[None] = None
    """What to do to resolve the error."""


class ModelFailure(TaskFailure):
    detail: str
    """What happened, in at most 1,000 characters."""


class Selection(ResponseBody):
    """The requested files. Absent if all files of the model were requested."""

    allow_patterns: list[str]
    ignore_patterns: list[str]
    weights: Weights


class PolicyWarning(ResponseBody):
    rule_id: str
    reason: str
    matched: list[str]
    """The values for which the rule matches."""


class PolicyResult(ResponseBody):
    """The final decision of the import policy on a model. It was made before the model was published."""

    decision: PolicyDecision
    rule_id: str | SkipJsonSchema[None] = Field(default=None, examples=["reviewed-owners"])
    """The rule that decided. Absent if the policy's default did."""
    reason: str
    matched: list[str] = Field(examples=[["name google-bert/bert-base-uncased"]])
    """The values for which the rule matches."""
    warnings: list[PolicyWarning]
    """Warnings of the policy, at most 20. For archives with many models, there may be fewer."""
    digest: str
    """SHA-256 of the policy document in hexadecimal."""


class ModelResult(ResponseBody):
    """A model of the task, or a SKIPPED directory of its archive that is not a valid model."""

    name: str | SkipJsonSchema[None] = None
    status: ModelStatus | Literal["SKIPPED", "DELETED"]
    model_id: str | SkipJsonSchema[None] = None
    hub_id: str | SkipJsonSchema[None] = None
    """The name under which the Hub read API serves the model."""
    commit: str | SkipJsonSchema[None] = None
    location: str | SkipJsonSchema[None] = Field(
        default=None, examples=["s3://models-bucket/models/huggingface/gpt2/607a30d7/"]
    )
    policy: PolicyResult | SkipJsonSchema[None] = None
    """What the import policy decided. Absent unless the model is READY, and in a stack without a policy."""
    error: ModelFailure | SkipJsonSchema[None] = None
    """Why the model is FAILED. A DONE task can have FAILED and READY models. Absent if another task has since started
    to import the model."""
    lacks: list[str] | SkipJsonSchema[None] = None
    """The files that are missing in the SKIPPED directory."""


class TaskSummary(ResponseBody):
    id: str
    model_tag: str = Field(examples=["bert-base-uncased@main"])
    task_status: TaskStatus
    source: Source
    created_at: datetime
    updated_at: datetime
    stage: Stage
    progress: TaskProgress
    waiting: TaskWaiting | SkipJsonSchema[None] = None
    commit: str | SkipJsonSchema[None] = None
    """The commit of the revision when the import was accepted. Absent for an archive."""
    submitted_by: str | SkipJsonSchema[None] = Field(default=None, examples=["api-key:a1b2c3d4e5"])
    """Who submitted the import: an API key (`api-key:ID`), the ARN of an IAM principal, a read key (`read-key:ID`), or
    the account or service that copied an archive into the incoming bucket (`aws-account:ID`, `aws-service:NAME`)."""
    cancelled_by: str | SkipJsonSchema[None] = None
    """Who cancelled the import."""
    selection: Selection | SkipJsonSchema[None] = None
    error_msg: str | SkipJsonSchema[None] = None
    """What happened, if the task is FAILED."""
    error: TaskFailure | SkipJsonSchema[None] = None


class Task(TaskSummary):
    models: list[ModelResult]


class TaskList(ResponseBody):
    tasks: list[TaskSummary]
    cursor: str | None
    """Pagination cursor of the next page; null on the last page."""


class ScannedFile(ResponseBody):
    path: str
    sha256: str


class Finding(ResponseBody):
    kind: FindingKind
    severity: Severity
    detail: str


class Inspection(ResponseBody):
    """The recognized format of a file's content, and the findings in it."""

    format: str = Field(examples=["safetensors"])
    verdict: FileVerdict
    reason: str | SkipJsonSchema[None] = None
    """Why the content was not fully parsed in this format."""
    findings: list[Finding] | SkipJsonSchema[None] = None


class InspectedFile(Inspection):
    path: str


class ManifestGateReport(ResponseBody):
    verdict: GateVerdict
    second_opinion: SecondOpinion | None
    """Verdict of the second scanner; null if the model has no pickles."""
    reasons: list[str]
    """Why the model is unsafe."""
    flags: list[str]
    """Findings (`kind: path`), and files that are missing (`incomplete`), were not fully parsed (`not-scanned`) or were
    not published (`left-out`). The number is limited in a model's record (8 to 100, depending on the number of models
    in the archive). The manifest has all."""
    scanned: list[ScannedFile]
    """Files with content that pickle loaders can read, and that was therefore scanned. The number is limited in a
    model's record (8 to 100, depending on the number of models in the archive). The manifest has all."""
    left_out: list[str]
    """Files that were not published: training state with findings. Inference does not need them. The number is limited
    in a model's record (2 to 25, depending on the number of models in the archive). The manifest has all."""


class GateReport(ManifestGateReport):
    files: list[InspectedFile]
    """Inspected files. Files that are not clean come first. The number is limited in a model's record (4 to 50,
    depending on the number of models in the archive). The manifest has all."""


class ModelCard(ResponseBody):
    """Metadata of the model card on the Hub. The author of the model wrote it, and it is not verified. Invalid values
    are omitted."""

    licenses: list[str] | SkipJsonSchema[None] = Field(default=None, examples=[["apache-2.0"]])
    """License identifiers of the Hub."""
    license_name: str | SkipJsonSchema[None] = None
    """Name of the license `other`."""
    license_link: str | SkipJsonSchema[None] = None
    """URL of the license `other`."""
    base_models: list[str] | SkipJsonSchema[None] = None
    """Names on the Hub."""
    base_model_relation: BaseModelRelation | SkipJsonSchema[None] = None
    library: str | SkipJsonSchema[None] = Field(default=None, examples=["transformers"])
    pipeline_tag: str | SkipJsonSchema[None] = Field(default=None, examples=["text-generation"])


class NewSignature(ResponseBody):
    key_arn: str
    """ARN of the KMS key that signed the model."""
    public_key: str
    """Public key in PEM form."""
    signed_at: datetime


class Signature(NewSignature):
    location: str = Field(examples=["s3://models-bucket/signatures/607a30d7/5f0c3b53.json"])
    """S3 URL of the signature file."""


class VerificationMaterial(ResponseBody):
    publicKey: dict[str, str]  # noqa: N815 - the format's own name
    """`hint` is the SHA-256 of the public key's PEM."""
    tlogEntries: list[object]  # noqa: N815
    """Always empty: the signature is not in a transparency log."""


class DsseEnvelope(ResponseBody):
    payload: str
    """The in-toto statement with the SHA-256 of every file, in Base64."""
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: list[dict[str, str]]


class SignatureBundle(ResponseBody):
    """A Sigstore bundle (https://docs.sigstore.dev/about/bundle/)."""

    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]  # noqa: N815
    verificationMaterial: VerificationMaterial  # noqa: N815
    dsseEnvelope: DsseEnvelope  # noqa: N815


class Bom(BaseModel):
    """A bill of materials in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

    model_config = ConfigDict(extra="allow")

    bomFormat: Literal["CycloneDX"]  # noqa: N815
    specVersion: Literal["1.6"]  # noqa: N815
    serialNumber: str  # noqa: N815
    metadata: dict[str, object]
    components: list[dict[str, object]]


class ModelPin(ResponseBody):
    pinned_at: datetime
    pinned_by: str | SkipJsonSchema[None] = None
    """Who pinned the model, as `submitted_by`."""
    reason: str | SkipJsonSchema[None] = None


class ModelRecord(ResponseBody):
    model_id: str
    name: str
    hub_id: str
    """The name under which the Hub read API serves the model."""
    source: Source
    commit: str
    revision: str
    """The requested revision, which was resolved to `commit`."""
    status: ModelStatus
    task_id: str
    created_at: datetime
    updated_at: datetime
    selection: Selection | SkipJsonSchema[None] = None
    files: NonNegativeInt | SkipJsonSchema[None] = None
    """Number of files."""
    size: NonNegativeInt | SkipJsonSchema[None] = None
    """Total size of the files in bytes."""
    location: str | SkipJsonSchema[None] = None
    gate: GateReport | SkipJsonSchema[None] = None
    gated: bool | SkipJsonSchema[None] = None
    """Whether the source gives the model only to accounts that have accepted its terms. Absent for models from archives
    and for models that an earlier version has imported."""
    committed_at: datetime | SkipJsonSchema[None] = None
    """The time that the commit states. Present only if the import policy needed it."""
    policy: PolicyResult | SkipJsonSchema[None] = None
    """Absent unless the model is READY, and if the stack had no policy."""
    card: ModelCard | SkipJsonSchema[None] = None
    """Absent for models from GitHub and from archives, and if the card has no metadata."""
    signature: Signature | SkipJsonSchema[None] = None
    """Absent if the model is not signed."""
    pin: ModelPin | SkipJsonSchema[None] = None
    """Absent if the model is not pinned."""
    last_read_on: date | SkipJsonSchema[None] = None
    """Last day (UTC) on which a client of the APIs read a file of the model. Absent if there was none."""
    submitted_by: str | SkipJsonSchema[None] = None
    """Who submitted the import, as in the task."""
    error: ModelFailure | SkipJsonSchema[None] = None
    """Why the import failed, if the model is FAILED."""


class PlannedDeletion(ModelRecord):
    rule: str
    """ID of the rule, or `follow:` with the ID of the follow."""
    reason: str


class RetentionPlan(ResponseBody):
    models: list[PlannedDeletion]
    """In the order in which they would be deleted."""
    count: NonNegativeInt
    size: NonNegativeInt
    """Total size of the files in bytes."""
    complete: bool
    """Whether all models were examined in the time of a request."""


class ManifestFile(ResponseBody):
    path: str
    size: NonNegativeInt
    """Size in bytes."""
    sha256: str
    source_digest: str = Field(examples=["git-sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"])
    """Digest from the source. The file was verified with it."""
    inspection: Inspection | SkipJsonSchema[None] = None
    """Absent if `PicklePolicy` is off."""


class NotFollowed(ResponseBody):
    """A symlink or submodule. It is recorded, but not imported."""

    path: str
    kind: FileKind
    object: str
    """Git object ID: the blob of the symlink, or the commit of the submodule."""


class Manifest(ResponseBody):
    version: Literal[1]
    model_id: str
    source: Source
    name: str
    hub_id: str
    """The name under which the Hub read API serves the model."""
    revision: str
    commit: str
    selection: Selection | SkipJsonSchema[None] = None
    prefix: str
    """Key prefix of the files in the models bucket."""
    task_id: str
    gate: ManifestGateReport
    files: list[ManifestFile]
    not_followed: list[NotFollowed]


class WholeModel(ModelRecord):
    manifest_url: str | SkipJsonSchema[None] = None
    """Presigned URL of the manifest. Expires after an hour."""
    manifest: Manifest | SkipJsonSchema[None] = None
    """Absent if the manifest is larger than 4 MB."""


class ModelList(ResponseBody):
    models: list[ModelRecord]
    cursor: str | None
    """Pagination cursor of the next page; null on the last page."""


class UsageTotal(ResponseBody):
    models: NonNegativeInt
    size: NonNegativeInt
    """Size of their files in bytes."""
    bytes_reused: NonNegativeInt
    """Bytes that were already stored when the models were imported, and were copied instead of transferred."""


class SourceUsage(UsageTotal):
    source: Source


class NameUsage(UsageTotal):
    source: Source
    name: str


class UsedModel(ResponseBody):
    model_id: str
    name: str
    source: Source
    revision: str
    commit: str
    files: NonNegativeInt
    size: NonNegativeInt
    """Size of the files in bytes."""
    created_at: datetime
    last_read_on: date | SkipJsonSchema[None] = None
    """Last day (UTC) on which a client read a file of the model. Absent if there was none."""
    pinned: bool


class UnreadUsage(UsageTotal):
    days: int
    """A model counts if it was last read this many days ago or earlier, or was imported then and never read."""
    largest: list[UsedModel]


class Quota(ResponseBody):
    size: NonNegativeInt
    """The quota in bytes."""
    stored: NonNegativeInt
    """Size of the READY models in bytes."""
    reserved: NonNegativeInt
    """Bytes that imports in progress have planned."""
    left: NonNegativeInt
    """Bytes that another import can have."""


class Usage(UsageTotal):
    measured_at: datetime
    is_complete: bool
    """False if there was no time to count all models. Then the newest are counted."""
    by_source: list[SourceUsage]
    names: NonNegativeInt
    """Number of names."""
    by_name: list[NameUsage]
    """The 20 names with most bytes. All commits and parts of a model have its name."""
    largest: list[UsedModel]
    """The 20 largest models."""
    unread: UnreadUsage
    quota: Quota | None
    """Null if the stack has no quota (parameter StorageQuotaGB)."""


class NewKey(ResponseBody):
    key_id: str
    name: str
    scopes: list[Scope]
    names: list[str]
    """Patterns of the `hub_id` of the models that the key can read and import."""
    created_at: datetime
    expires_at: datetime | None
    """Null if the key does not expire."""


class CreatedKey(NewKey):
    key: str
    """The key. It cannot be read again."""


class ReadKey(NewKey):
    expired: bool
    last_used_on: date | None
    """Day (UTC) of the last request with the key; null if there was none."""
    created_by: str | SkipJsonSchema[None] = None
    """Who created the key, such as `api-key:ID` or the ARN of an IAM principal."""


class KeyList(ResponseBody):
    keys: list[ReadKey]
    hub_url: str
    """URL of the Hub read API."""


class FollowError(ResponseBody):
    """Why the last check failed."""

    type: str
    """The type of the error. It is stable, so programs can compare it."""
    detail: str
    retryable: bool
    """Whether the error may pass by itself."""
    at: datetime
    remedy: str | SkipJsonSchema[None] = None
    """What to do to resolve the error."""


class FollowedImport(ResponseBody):
    """The commit that was found last."""

    commit: str
    previous_commit: str | None
    """The commit that was found before; null for the first one."""
    rewritten: bool | None
    """Whether the branch was rewritten: the history of `commit` does not contain `previous_commit`. Null if unknown."""
    found_at: datetime
    model_id: str
    task_id: str | None
    """The task that imports the model; null if it existed already."""
    status: ModelStatus | Literal["DELETED"]
    """The current status of the model."""
    error: ModelFailure | SkipJsonSchema[None] = None
    """Why the import failed."""


class Follow(ResponseBody):
    follow_id: str
    source: Source
    name: str
    """The current name of the model at its source."""
    former_names: list[str] | SkipJsonSchema[None] = None
    """Names of the model before it was renamed, newest first."""
    revision: str
    selection: Selection | SkipJsonSchema[None] = None
    """The imported files. Absent if all files are imported."""
    every: str
    keep_newest: int | None
    """How many imported versions to keep; null for all."""
    status: FollowStatus
    created_at: datetime
    created_by: str | SkipJsonSchema[None] = None
    """Who created the follow, such as `api-key:ID` or the ARN of an IAM principal."""
    checked_at: datetime | None
    """The last check; null if there was none."""
    next_check: datetime | None
    """Null while the follow is paused. The check starts up to five minutes later."""
    waits_for_rate_limit: bool
    """Whether the next check waits for the end of the source's rate limit."""
    consecutive_failures: NonNegativeInt
    """Number of failed checks since the last successful one. Each of them delays the next check further."""
    last_import: FollowedImport | None
    last_error: FollowError | None
    """Null if the last check succeeded."""


class FollowList(ResponseBody):
    follows: list[Follow]


class AuditEntry(ResponseBody):
    """Which action somebody did, to what, and when. Fields that the action does not have are absent."""

    id: str
    time: datetime
    action: AuditAction
    actor: str | SkipJsonSchema[None] = None
    """Who did it, such as `api-key:ID` or the ARN of an IAM principal; absent if AWS did not pass a caller."""
    model_id: str | SkipJsonSchema[None] = None
    task_id: str | SkipJsonSchema[None] = None
    key_id: str | SkipJsonSchema[None] = None
    """ID of a read key."""
    follow_id: str | SkipJsonSchema[None] = None
    name: str | SkipJsonSchema[None] = None
    """Name of the model at its source, or of the read key."""
    source: Source | SkipJsonSchema[None] = None
    commit: str | SkipJsonSchema[None] = None
    reason: str | SkipJsonSchema[None] = None
    """Why it was done."""
    detail: dict[str, str] | SkipJsonSchema[None] = None
    """Further facts, which depend on the action."""


class AuditList(ResponseBody):
    entries: list[AuditEntry]
    cursor: str | None
    """Pagination cursor of the next page; null on the last page."""
    retention_days: int
    """Days for which new entries are kept; 0 if actions are not recorded."""


class UploadStep(ResponseBody):
    method: Literal["PUT", "POST", "DELETE"]
    url: str
    body: str | SkipJsonSchema[None] = None


class UploadPart(ResponseBody):
    number: int
    method: Literal["PUT"]
    url: str
    start: int
    """Start offset (inclusive) of the part, in bytes."""
    end: int
    """End offset (exclusive) of the part, in bytes."""


class WholeUpload(ResponseBody):
    """Upload of an archive of up to 5 GB: a single PUT request."""

    method: Literal["PUT"]
    url: str


class PartsUpload(ResponseBody):
    """Upload of an archive above 64 MB.

    Upload each part with PUT, then send the `complete` request with the ETags. Send `abort` to cancel.
    """

    parts: list[UploadPart]
    complete: UploadStep
    abort: UploadStep


class Upload(ResponseBody):
    task_id: str
    expires_at: datetime
    """When the presigned URLs expire at the latest. They expire earlier if the credentials that signed them do.
    `POST /v1/upload/tasks/{task_id}/urls` signs them again."""
    upload_until: datetime
    """Until when the task waits for the upload."""
    upload: WholeUpload | PartsUpload


class Policy(ResponseBody):
    """The policy of the stack. Every member is null in a stack without a policy."""

    location: str | None
    """The address of the document, as in the parameter PolicyLocation."""
    version: str | None
    """The object's version ID (in a bucket without versions its ETag), or the number of the parameter's version."""
    digest: str | None
    """SHA-256 of the document in hexadecimal."""
    document: dict[str, Any] | None


class PolicySummary(ResponseBody):
    digest: str
    """SHA-256 of the document in hexadecimal."""
    default: Literal["allow", "deny"]
    """The decision if no rule decides."""
    rules: NonNegativeInt
    retention_rules: NonNegativeInt


class TestedRule(PolicyWarning):
    effect: Effect
    matches: bool | None
    """Null if it depends on facts that are not known yet."""
    waits_for: list[str]
    """The facts that are not known yet."""


class TestedFacts(ResponseBody):
    """What is known about the model before a transfer."""

    licenses: list[str]
    gated: bool | None
    committed_at: datetime | None
    """Known only if a rule has a condition on it."""
    size: NonNegativeInt | None
    """The bytes of the selected files."""
    formats: list[str]
    """The distinct formats of the files of weights, as far as their names show them."""


class TestedPolicy(ResponseBody):
    """The policy that was tested. `location` and `version` are null for a document of the request."""

    location: str | None
    version: str | None
    digest: str | None
    """Null in a stack without a policy."""


class PolicyTrial(ResponseBody):
    """What the policy would decide about an import now."""

    source: Source
    name: str
    """The canonical name at the source."""
    revision: str | None
    commit: str | None
    model_id: str | None
    """The ID that the model would have. Null for a model from an archive, as `revision` and `commit`."""
    decision: PolicyDecision
    """`undecided`: the decision depends on facts that are known only during the import, see `waits_for`."""
    rule_id: str | None
    """The rule that decides. Null if the default does, or if the decision is open."""
    reason: str | None
    matched: list[str]
    """The values for which the rule matches."""
    warnings: list[PolicyWarning]
    """The warnings that are certain."""
    waits_for: list[str]
    """The facts on which the decision or its warnings still depend."""
    rules: list[TestedRule]
    """The rules that match or may match, in their order. The first with the effect `allow` or `deny` decides."""
    facts: TestedFacts
    policy: TestedPolicy


class _AbsentIsNotNull(GenerateJsonSchema):
    """Generator of schemas without default null. Members without a value are absent from responses."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


BODIES: tuple[type[BaseModel], ...] = (
    Problem,
    Policy,
    PolicySummary,
    PolicyTrial,
    Task,
    TaskList,
    ModelRecord,
    ModelList,
    WholeModel,
    RetentionPlan,
    Usage,
    NewSignature,
    SignatureBundle,
    Bom,
    Upload,
    CreatedKey,
    KeyList,
    Follow,
    FollowList,
    AuditList,
)


def describe_bodies() -> dict[str, Any]:
    """Return the JSON Schemas by name, for the document's components."""
    _, schemas = models_json_schema(
        [(body, "validation") for body in BODIES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_AbsentIsNotNull,
    )
    found: dict[str, Any] = schemas["$defs"]
    return found
