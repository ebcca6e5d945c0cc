"""Examples of requests and responses.

The code of the API generates the responses, and raises the errors. Only the texts of errors that need a response from a
source or from AWS are copied from the code. `test_openapi.py` checks that the code has each text.
"""

import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from modelhaul.adapters.dynamodb.pages import read_cursor
from modelhaul.archives.entries import ArchiveLimits
from modelhaul.archives.models import inspect_archive
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.catalog.audit import present_entry
from modelhaul.catalog.bom import SourceUrls, build_bom
from modelhaul.catalog.presentation import (
    present_inspection,
    present_model,
    present_signature,
    present_task,
    present_whole_task,
    summarize_gate,
)
from modelhaul.catalog.quota import create_quota_error
from modelhaul.catalog.usage import UNREAD_DAYS, present_usage
from modelhaul.domain import errors
from modelhaul.domain.archives import Archive, UploadPart, UploadTicket
from modelhaul.domain.audit import describe_deletion, describe_key_creation, describe_submission
from modelhaul.domain.claims import check_claimable
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.findings import FileInspection, FileVerdict
from modelhaul.domain.follows import MAX_FOLLOWS, FollowedImport, create_follow, pause, record_success
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.keys import bom_key, signature_key
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import Model, ModelPin, ModelStatus, ResolvedModel, Source, describe_missing_model
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.domain.quotas import QuotaUse
from modelhaul.domain.read_keys import ReadKey, Scope, identify_key
from modelhaul.domain.required_files import RequiredFiles
from modelhaul.domain.signatures import ModelSignature, PublicKey
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, Waiting, describe_missing_task
from modelhaul.domain.usage import UsageCounter
from modelhaul.entrypoints.api import UNSTORED
from modelhaul.entrypoints.follows import present_follow
from modelhaul.entrypoints.forms import read_upload_form
from modelhaul.entrypoints.policies import present_check, present_policy, present_trial
from modelhaul.entrypoints.problems import create_error_response, create_invalid_response
from modelhaul.entrypoints.read_keys import present_created_key, present_key
from modelhaul.entrypoints.responses import (
    accept_models,
    accept_task,
    accept_upload,
    create_follow_response,
    renew_upload,
)
from modelhaul.imports.import_policy import describe_denial
from modelhaul.imports.submit_archive import check_file_name
from modelhaul.policy.document import parse_policy
from modelhaul.policy.evaluate import Truth, match_rules
from modelhaul.policy.facts import know_files, know_model
from modelhaul.policy.reader import ReadPolicy
from modelhaul.policy.trial import PolicyTrial
from modelhaul.signing.bundle import build_bundle
from modelhaul_sources import github_api, huggingface_api
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import create_retryable_error
from openapi.gateway import PROBLEMS as GATEWAY_PROBLEMS

CALLER = "api-key:k1l2m3n4o5"
BUCKET = "modelhaul-modelsbucket-1a2b3c4d5e6f"
CREATED = datetime(2025, 6, 22, 12, 0, 0, tzinfo=UTC)
_COMMITTED = CREATED - timedelta(days=480)
ENDED = CREATED + timedelta(seconds=41)
TASK_ID = "5f0c3b53-7f5b-4a0e-9d2a-0d8b1e6f4c11"
ARCHIVE_TASK_ID = "b9d5f1f0-4a53-4a9c-8f2e-6a0f7f4f9a20"
WAITING_TASK_ID = "7c1d5a3e-2b4f-4c8d-8a6b-3e9f0d1c2b5a"
FAILED_TASK_ID = "0b9a4e0e-6a0f-4f53-9c0e-0d3b6f1f2a77"
COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
WEIGHTS = 440_449_768
OTHERS = 700_000
PART_SIZE = 16 * 1024 * 1024

_CARD = ModelCard(licenses=("apache-2.0",), library="transformers", pipeline_tag="fill-mask")
_BERT = ResolvedModel(
    Source.HUGGINGFACE,
    "google-bert/bert-base-uncased",
    "main",
    COMMIT,
    card=_CARD,
    gated=False,
    committed_at=_COMMITTED,
)
_FLAGS = ("chat-template: tokenizer_config.json",)
_FILES = (FileInspection("config.json", "0" * 64, "json", FileVerdict.CLEAN),)
_CLEAN = GateReport(GateVerdict.CLEAN, flags=_FLAGS, second_opinion=SecondOpinion.CLEAN, files=_FILES)
_KEY = PublicKey(
    "arn:aws:kms:eu-central-1:123456789012:key/1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE…\n-----END PUBLIC KEY-----\n",
    "sha256",
)
SIGNATURE = ModelSignature(_KEY.arn, _KEY.pem, ENDED)
HUB_MODEL = Model(
    _BERT.model_id,
    _BERT,
    ModelStatus.READY,
    TASK_ID,
    CREATED,
    ENDED,
    files=5,
    size=WEIGHTS + OTHERS,
    gate=_CLEAN,
    submitted_by=CALLER,
    signature=SIGNATURE,
    policy=PolicyResult(
        PolicyDecision.ALLOW,
        "reviewed-owners",
        "Owners that the platform team has reviewed.",
        ("name google-bert/bert-base-uncased",),
        (PolicyWarning("templates", "Chat templates run in the tokenizer.", ("finding chat-template (low)",)),),
        digest=hashlib.sha256(b"policy").hexdigest(),
    ),
)
_ZIPPED = ResolvedModel(Source.LOCAL, "my-model", ARCHIVE_TASK_ID, ARCHIVE_TASK_ID)
ARCHIVE_MODEL = Model(
    _ZIPPED.model_id, _ZIPPED, ModelStatus.READY, ARCHIVE_TASK_ID, CREATED, ENDED, files=3, size=91_000_000, gate=_CLEAN
)
RUNNING = Task(
    TASK_ID,
    Source.HUGGINGFACE,
    "bert-base-uncased@main",
    (HUB_MODEL.model_id,),
    CREATED,
    CREATED + timedelta(seconds=5),
    stage=Stage.TRANSFERRING,
    progress=Progress(4, 5, bytes_done=268_435_456 + OTHERS, bytes_total=WEIGHTS + OTHERS),
    transfer_began_at=CREATED + timedelta(seconds=1),
    bytes_counted_at=CREATED + timedelta(seconds=5),
    commit=COMMIT,
    submitted_by=CALLER,
)
SHOWN = CREATED + timedelta(seconds=7)
_UNAVAILABLE = errors.SourceUnavailableError("https://huggingface.co/OWNER/MODEL responded with status 503.")
WAITING = replace(
    RUNNING,
    id=WAITING_TASK_ID,
    model_tag="OWNER/MODEL@main",
    waiting=Waiting(
        _UNAVAILABLE.type,
        _UNAVAILABLE.detail,
        since=CREATED + timedelta(seconds=6),
        attempt=1,
        next_attempt=CREATED + timedelta(seconds=11),
        recorded_at=CREATED + timedelta(seconds=6),
    ),
    waiting_stage=Stage.TRANSFERRING,
)
_MISSING = errors.RequiredFilesError(f"OWNER/REPOSITORY at {COMMIT} is not a model. Missing: tokenizer.json.")
FAILED = Task(
    FAILED_TASK_ID,
    Source.GITHUB,
    "OWNER/REPOSITORY@main",
    ("2f1d7c52-2a49-5d1e-8f0a-0d7f7cf3b6ae",),
    CREATED,
    CREATED + timedelta(seconds=2),
    Stage.FAILED,
    error=TaskError(_MISSING.type, _MISSING.detail, _MISSING.retryable),
    commit=COMMIT,
)
READ_KEY = "hf_0123456789abcdefghijklmnopqrstuvwxyzABCD"
KEY_RECORD = ReadKey(
    identify_key(READ_KEY),
    "inference-cluster",
    "",
    (Scope.READ, Scope.IMPORT),
    CREATED,
    CREATED + timedelta(days=365),
    date(2025, 6, 23),
    CALLER,
    ("google-bert/*", "archive.local/team__*"),
)
_PIN = ModelPin(ENDED, CALLER, "Used by the production ranking service.")
_PINNED = replace(HUB_MODEL, pin=_PIN)
_FOLLOWED = create_follow(_BERT, timedelta(days=1), CREATED, keep_newest=3, created_by=CALLER)
FOLLOW = record_success(
    _FOLLOWED,
    CREATED,
    name=_BERT.name,
    found=FollowedImport(COMMIT, HUB_MODEL.model_id, CREATED, TASK_ID),
)
_ENTRIES = (
    describe_deletion(HUB_MODEL, "arn:aws:iam::123456789012:user/alice", CREATED + timedelta(days=30)),
    describe_key_creation(KEY_RECORD),
    describe_submission(RUNNING, [HUB_MODEL]),
)
ENTRIES = [replace(entry, id=str(uuid.uuid5(uuid.NAMESPACE_OID, entry.action))) for entry in _ENTRIES]
HUB_URL = "https://API_ID.execute-api.REGION.amazonaws.com/hf"
CURSOR = "MjAyNS0wNi0yMlQxMjowMDowMC4wMDAwMDArMDAwMCA1ZjBjM2I1My03ZjViLTRhMGUtOWQyYS0wZDhiMWU2ZjRjMTE"


@dataclass(frozen=True)
class Example:
    """Examples of one route.

    `responses`: the bodies of successful responses by status. `body`: the body of the request. `path`: the path
    parameters. `headers`: the response headers. `problems` replace the examples of `PROBLEMS` for this route.
    """

    responses: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    path: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[errors.ModelhaulError, ...] = ()


def _show_manifest() -> dict[str, Any]:
    content = b'{"architectures": ["BertForMaskedLM"]}'
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    file = {"path": "config.json", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {
        "version": 1,
        "model_id": HUB_MODEL.model_id,
        "source": _BERT.source,
        "name": _BERT.name,
        "hub_id": _BERT.hub_id,
        "revision": _BERT.revision,
        "commit": _BERT.commit,
        "prefix": _BERT.prefix,
        "task_id": TASK_ID,
        "gate": summarize_gate(_CLEAN),
        "files": [{**file, "source_digest": f"git-sha1:{blob}", "inspection": present_inspection(_FILES[0])}],
        "not_followed": [],
    }


AWAITED = replace(
    RUNNING,
    id=ARCHIVE_TASK_ID,
    source=Source.LOCAL,
    model_ids=(ARCHIVE_MODEL.model_id,),
    archive=Archive(f"uploads/{ARCHIVE_TASK_ID}", "models.zip"),
)


def _show_upload() -> Any:
    ticket = UploadTicket(CREATED + timedelta(hours=12), put_url="https://BUCKET.s3.amazonaws.com/uploads/…?X-Amz-…")
    return json.loads(accept_upload(AWAITED, ticket).body or "")


def _show_renewal() -> Any:
    url = f"https://BUCKET.s3.amazonaws.com/uploads/{ARCHIVE_TASK_ID}.zip?uploadId=…&X-Amz-…"
    part = UploadPart(3, url, 2 * PART_SIZE, 3 * PART_SIZE)
    ticket = UploadTicket(CREATED + timedelta(hours=20), parts=(part,), complete_url=url, abort_url=url)
    return json.loads(renew_upload(AWAITED, ticket).body or "")


def show_problem(error: errors.ModelhaulError) -> Any:
    """Return the problem document of the error."""
    return json.loads(create_error_response(error).body or "")


def _catch(call: Callable[..., object], *arguments: Any) -> errors.ModelhaulError:
    """Return the error that the call raises."""
    try:
        call(*arguments)
    except errors.ModelhaulError as error:
        return error
    raise ValueError(f"{call} raises no error")


def _inspect_archive(file_name: str) -> None:
    """Inspect an archive with one file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(file_name, "text")
    body = content.getvalue()
    reader = ArchiveReader(open_memory(body), len(body), _LIMITS)
    inspect_archive(reader, Archive("posted/models.zip", "models.zip"), RequiredFiles.EQUIVALENTS)


def _respond(status: HTTPStatus, headers: Mapping[str, str]) -> None:
    """Raise the error for a response of the source."""
    if error := create_retryable_error(f"https://huggingface.co/api/models/{_BERT.name}", status, headers):
        raise error


def _reject_fields(*found: dict[str, Any]) -> Any:
    """Return the problem document of the validation errors."""
    return json.loads(create_invalid_response(RequestValidationError(found)).body or "")


def _show_problems() -> dict[str, Any]:
    """Return an example of each problem that a route can return, by the last part of its type."""
    gateway = {problem.kind: problem.render() for problem in GATEWAY_PROBLEMS.values()}
    invalid = {"type": "string_type", "loc": ("body", "revision"), "msg": "Input should be a valid string"}
    without_file = "multipart/form-data; boundary=x", b"--x--\r\n"
    return {
        **{kind: gateway[kind] for kind in ("invalid-api-key", "throttled", "quota-exceeded", "gateway-timeout")},
        "invalid-json": _reject_fields({"type": "json_invalid", "loc": ("body",)}),
        "invalid-fields": _reject_fields(invalid),
        **{error.type: show_problem(error) for error in _PROBLEMS},
        "invalid-form-field": show_problem(_catch(read_upload_form, *without_file)),
    }


def _show_usage() -> Any:
    counter = UsageCounter(CREATED + timedelta(days=60), UNREAD_DAYS)
    counter.add(HUB_MODEL)
    counter.add(ARCHIVE_MODEL)
    quota = QuotaUse(2 * 10**12, HUB_MODEL.size + ARCHIVE_MODEL.size, WEIGHTS)
    return present_usage(counter.summarize(is_complete=True, quota=quota))


def _show_bom() -> Any:
    urls = SourceUrls("https://huggingface.co", "https://github.com")
    return json.loads(build_bom(HUB_MODEL, _show_manifest(), urls, location=f"s3://{BUCKET}/{_BERT.prefix}"))


_LIMITS = ArchiveLimits(
    max_entries=100_000, max_entry_bytes=40_000_000_000, max_total_bytes=500_000_000_000, max_ratio=200
)
_IDEMPOTENCY_KEY = "3d3f6b1c-0f6e-4c6e-9a53-7c1d2b8e5f40"
_PROBLEMS: tuple[errors.ModelhaulError, ...] = (
    _catch(read_cursor, "x", "id"),
    _catch(github_api.parse_name, "-owner/repository"),
    _catch(read_upload_form, "multipart/form-data", b""),
    _catch(check_claimable, "", [HUB_MODEL]),
    _catch(check_claimable, "", [replace(HUB_MODEL, status=ModelStatus.IMPORTING)]),
    _catch(check_claimable, "", [replace(HUB_MODEL, status=ModelStatus.DELETING)]),
    _catch(_inspect_archive, "../x"),
    _catch(_inspect_archive, "notes/readme.md"),
    _catch(HostPolicy.for_hub("https://huggingface.co").check_url, "https://cdn.example.com/model.safetensors"),
    _catch(_respond, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "300"}),
    _catch(_respond, HTTPStatus.BAD_GATEWAY, {}),
    errors.ModelNotFoundError(describe_missing_model(HUB_MODEL.model_id)),
    errors.TaskNotFoundError(describe_missing_task(TASK_ID)),
    errors.InternalError("Internal error. Request ID: 7d3f0c52-5d0c-4a57-9a0f-2f2c8e1b6a34."),
    errors.StorageUnavailableError("DynamoDB request failed (ThrottlingException)."),
    errors.RevisionNotFoundError(f"Revision 'v2' of {_BERT.name} not found."),
    errors.ModelFileNotFoundError(f"File 'Config.json' not found in {_BERT.name}."),
    errors.TaskEndedError(f"Task {TASK_ID} has already ended."),
    errors.UploadNotOpenError(f"Task {ARCHIVE_TASK_ID} does not wait for an upload. Its stage is INSPECTING."),
    errors.SignatureNotFoundError(f"{_BERT.describe()} is not signed."),
    errors.SigningRefusedError("The model cannot be signed: KMS Sign failed (DisabledException)."),
    errors.ModelPinnedError(f"{_BERT.describe()} is pinned."),
    _catch(parse_policy, b'{"version": 1, "rules": [{"id": "no-gpl", "effect": "block"}]}'),
    describe_denial(
        "OWNER/MODEL",
        PolicyResult(PolicyDecision.DENY, "no-gpl", "Legal does not permit it.", ("license gpl-3.0",)),
    ),
    errors.PolicyUnavailableError(
        "The policy at ssm:/modelhaul/policy cannot be read: SSM GetParameter failed (ParameterNotFound)."
    ),
    errors.EmptyModelError(f"No file matches the allow patterns '*.gguf' of {_BERT.name}."),
    errors.RequiredFilesError(f"{_BERT.describe()} has no pytorch weights, only model.safetensors."),
    errors.ListingTooLongError("Directory 'data' of OWNER/REPOSITORY has more entries than GitHub lists (100,000)."),
    errors.FileMissingError("model.bin is a Git LFS pointer whose content was removed from the LFS server."),
    errors.FileTooLargeError("model.bin exceeds the size limit of the LFS server."),
    errors.SourceQuotaError(
        "OWNER/REPOSITORY cannot be downloaded: the repository has exceeded its Git LFS budget on GitHub. The budget "
        "is renewed every month."
    ),
    errors.KeyNotFoundError(f"Key {KEY_RECORD.key_id} not found."),
    errors.FollowNotFoundError(f"Follow {FOLLOW.id!r} not found."),
    errors.FollowExistsError(f"{FOLLOW.describe()} is already followed by {FOLLOW.id}.", follow_id=FOLLOW.id),
    errors.FollowLimitError(f"The stack already has {MAX_FOLLOWS} follows; the limit is {MAX_FOLLOWS}."),
    errors.AccessRequiredError(
        "meta-llama/Llama-3.1-8B is gated.",
        remedy="Accept its terms at https://huggingface.co/meta-llama/Llama-3.1-8B with the account that owns the "
        "token in HuggingFaceTokenSecret. Then submit the import again.",
    ),
    errors.ModelDisabledError("OWNER/REPOSITORY is blocked on GitHub and cannot be downloaded."),
    errors.ArchiveTooLargeError(
        "The archive has 700,000,000,000 bytes; the limit is 500,000,000,000 (parameter ArchiveMaxTotalBytes)."
    ),
    errors.InvalidIdempotencyKeyError(
        "Invalid Idempotency-Key 'my key' (6 characters). It must have 1 to 255 printable ASCII characters without "
        "spaces."
    ),
    errors.IdempotencyKeyReusedError(f"Idempotency-Key {_IDEMPOTENCY_KEY!r} was used with a different request."),
    errors.RequestInProgressError(f"The first request with Idempotency-Key {_IDEMPOTENCY_KEY!r} is in progress."),
    create_quota_error(QuotaUse(2 * 10**12, 1_870_254_110_392, 96_000_000_000), WEIGHTS + 10**11),
    errors.CredentialsRefusedError("The Hub rejected the token in HuggingFaceTokenSecret. The token may have expired."),
    errors.SourceRefusedError(f"The Hub responded with status 405 for {_BERT.name}."),
    errors.UnexpectedResponseError(f"The Hub returned an invalid response for {_BERT.name}."),
)
PROBLEMS: dict[str, Any] = _show_problems()

_POLICY = b"""{
  "version": 1,
  "rules": [
    {"id": "safetensors", "effect": "deny", "reason": "No pickles.", "when": {"format_not": ["safetensors"]}},
    {"id": "large", "effect": "warn", "reason": "Ask the storage team first.", "when": {"size_above": 100000000}}
  ]
}"""
_READ_POLICY = ReadPolicy(
    parse_policy(_POLICY), _POLICY, hashlib.sha256(_POLICY).hexdigest(), "3", CREATED, "ssm:/modelhaul/policy"
)


def _show_trial() -> dict[str, Any]:
    digest = Digest(Algorithm.SHA256, "0" * 64)
    files = [SourceFile(f"model.{suffix}", WEIGHTS, digest) for suffix in ("safetensors", "bin")]
    facts = know_files(know_model(_BERT, CREATED), files)
    rules = tuple(outcome for outcome in match_rules(_READ_POLICY.policy, facts) if outcome.truth is not Truth.FALSE)
    return present_trial(PolicyTrial(_READ_POLICY.evaluate(facts), facts, rules, _BERT, _READ_POLICY))


_OK, _CREATED = str(HTTPStatus.OK.value), str(HTTPStatus.CREATED.value)
EXAMPLES: dict[str, Example] = {
    "POST /upload/huggingface": Example(
        body={"model_tag": "bert-base-uncased", "revision": "main", "weights": "safetensors"},
        headers=accept_task(RUNNING).headers,
        problems=(
            _catch(huggingface_api.check_name, f"https://huggingface.co/{_BERT.name}"),
            errors.ModelNotFoundError(
                "The Hub has no public model google-bert/bert-base-uncasd. A private model requires a token with read "
                "access in HuggingFaceTokenSecret.",
                remedy=huggingface_api.describe_name_remedy(["google-bert/bert-base-uncased"]),
            ),
        ),
    ),
    "POST /upload/github": Example(
        body={"owner": "OWNER", "repo_name": "REPOSITORY", "revision": "main"},
        headers=accept_task(RUNNING).headers,
        problems=(
            errors.ModelNotFoundError(
                "GitHub has no public repository OWNER/REPOSITORY. A private repository requires a token with read "
                "access in GitHubTokenSecret.",
                remedy="Check the owner and the name of the repository: they are in the URL of its page. If it is "
                "private, ask an operator to configure a token that can read it.",
            ),
        ),
    ),
    "POST /upload/local": Example(
        {_CREATED: _show_upload()},
        {"file_name": "models.zip", "size": 50_000_000, "model_name": "my-model"},
        headers=accept_models(AWAITED).headers,
        problems=(_catch(check_file_name, "models.rar"),),
    ),
    "POST /upload/tasks/{task_id}/urls": Example(
        {_OK: _show_renewal()},
        {"parts": [3]},
        path={"task_id": ARCHIVE_TASK_ID},
        problems=(
            errors.InvalidReferenceError(
                "Part 13 does not exist. The number of parts of this upload is 12.", part="parts"
            ),
        ),
    ),
    "GET /upload/tasks": Example(
        {_OK: {"tasks": [present_task(task, now=SHOWN) for task in (WAITING, FAILED, RUNNING)], "cursor": CURSOR}}
    ),
    "GET /upload/tasks/{task_id}": Example(
        {
            _OK: present_whole_task(
                RUNNING, [replace(HUB_MODEL, status=ModelStatus.IMPORTING, gate=None)], bucket=BUCKET, now=SHOWN
            )
        },
        path={"task_id": TASK_ID},
    ),
    "DELETE /upload/tasks/{task_id}": Example(path={"task_id": TASK_ID}),
    "GET /upload/local/{model_id}": Example(
        {_OK: present_model(ARCHIVE_MODEL, bucket=BUCKET)}, path={"model_id": ARCHIVE_MODEL.model_id}
    ),
    "GET /models": Example(
        {
            _OK: {
                "models": [present_model(model, bucket=BUCKET) for model in (ARCHIVE_MODEL, HUB_MODEL)],
                "cursor": None,
            }
        }
    ),
    "GET /models/{model_id}": Example(
        {
            _OK: {
                **present_model(HUB_MODEL, bucket=BUCKET),
                "manifest_url": f"https://{BUCKET}.s3.amazonaws.com/manifests/{HUB_MODEL.model_id}.json?X-Amz-…",
                "manifest": _show_manifest(),
            }
        },
        path={"model_id": HUB_MODEL.model_id},
    ),
    "DELETE /models/{model_id}": Example(path={"model_id": HUB_MODEL.model_id}),
    "PUT /models/{model_id}/pin": Example(
        {_OK: present_model(_PINNED, bucket=BUCKET)}, {"reason": _PIN.reason}, path={"model_id": HUB_MODEL.model_id}
    ),
    "DELETE /models/{model_id}/pin": Example(path={"model_id": HUB_MODEL.model_id}),
    "GET /retention": Example(
        {
            _OK: {
                "models": [
                    {
                        **present_model(HUB_MODEL, bucket=BUCKET, with_gate=False),
                        "rule": "nightlies",
                        "reason": "Nightly builds are needed for a week. (commit 4 of 5, last read on 2025-07-02, "
                        "imported on 2025-06-22)",
                    }
                ],
                "count": 1,
                "size": HUB_MODEL.size,
                "complete": True,
            }
        }
    ),
    "GET /models/{model_id}/files/{path}": Example(
        path={"model_id": HUB_MODEL.model_id, "path": "config.json"},
        headers={"Location": f"https://{BUCKET}.s3.amazonaws.com/{_BERT.prefix}config.json?X-Amz-…"},
    ),
    "GET /models/{model_id}/signature": Example(
        {_OK: json.loads(build_bundle(b'{"_type":"https://in-toto.io/Statement/v1"}', b"", _KEY))},
        path={"model_id": HUB_MODEL.model_id},
        headers={"Location": f"https://{BUCKET}.s3.amazonaws.com/{signature_key(HUB_MODEL)}?X-Amz-…"},
    ),
    "POST /models/{model_id}/signature": Example(
        {_CREATED: present_signature(SIGNATURE), _OK: present_signature(SIGNATURE)},
        path={"model_id": HUB_MODEL.model_id},
        headers={"Location": f"/v1/models/{HUB_MODEL.model_id}/signature"},
    ),
    "GET /models/{model_id}/bom": Example(
        {_OK: _show_bom()},
        path={"model_id": HUB_MODEL.model_id},
        headers={"Location": f"https://{BUCKET}.s3.amazonaws.com/{bom_key(HUB_MODEL)}?X-Amz-…"},
    ),
    "GET /usage": Example({_OK: _show_usage()}),
    "POST /follows": Example(
        {_CREATED: present_follow(_FOLLOWED, {})},
        {"source": "HUGGINGFACE", "name": _BERT.name, "every": "1d", "keep_newest": 3},
        headers=create_follow_response(FOLLOW.id, {}).headers,
        problems=(
            errors.InvalidReferenceError(
                f"The revision {COMMIT!r} is a commit, which never moves. Follow a branch or a tag, or import the "
                "commit once.",
                part="revision",
            ),
        ),
    ),
    "GET /follows": Example({_OK: {"follows": [present_follow(FOLLOW, {HUB_MODEL.model_id: HUB_MODEL})]}}),
    "GET /follows/{follow_id}": Example(
        {_OK: present_follow(FOLLOW, {HUB_MODEL.model_id: HUB_MODEL})}, path={"follow_id": FOLLOW.id}
    ),
    "PATCH /follows/{follow_id}": Example(
        {_OK: present_follow(pause(FOLLOW), {HUB_MODEL.model_id: HUB_MODEL})},
        {"paused": True},
        path={"follow_id": FOLLOW.id},
    ),
    "DELETE /follows/{follow_id}": Example(path={"follow_id": FOLLOW.id}),
    "POST /keys": Example(
        {_CREATED: present_created_key(READ_KEY, KEY_RECORD)},
        {
            "name": KEY_RECORD.name,
            "scopes": ["read", "import"],
            "names": list(KEY_RECORD.names),
            "expires_at": "2026-06-22T12:00:00Z",
        },
        problems=(errors.InvalidIdempotencyKeyError(UNSTORED),),
    ),
    "GET /keys": Example({_OK: {"keys": [present_key(KEY_RECORD, CREATED)], "hub_url": HUB_URL}}),
    "DELETE /keys/{key_id}": Example(path={"key_id": KEY_RECORD.key_id}),
    "GET /policy": Example({_OK: present_policy(_READ_POLICY)}),
    "POST /policy/tests": Example({_OK: _show_trial()}, {"name": "bert-base-uncased"}),
    "POST /policy/checks": Example(
        {_OK: present_check(_READ_POLICY.policy, _READ_POLICY.digest)}, {"document": _POLICY.decode()}
    ),
    "GET /audit": Example(
        {_OK: {"entries": [present_entry(entry) for entry in ENTRIES], "cursor": None, "retention_days": 365}}
    ),
    "GET /openapi.json": Example({_OK: {"openapi": "3.1.0", "info": {"title": "Modelhaul"}, "paths": {}}}),
}
