"""POST /v1/upload/local and /v1/upload/tasks/{task_id}/urls"""

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel, ConfigDict, Field

from modelhaul import wiring
from modelhaul.domain import errors
from modelhaul.domain.archives import MAX_PARTS
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import IMPORTING, describe_responses
from modelhaul.entrypoints.forms import read_upload_form
from modelhaul.entrypoints.requests import read_body, read_form_type, read_json
from modelhaul.entrypoints.responses import accept_models, accept_upload, renew_upload

app = create_app()
handler = create_handler(app, accepts_forms=True)
wiring.build_early(wiring.create_archive_submitter)


_ARCHIVE_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # of a local header, and of the directory of an empty archive


class LargeUpload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file_name: str = Field(min_length=1, max_length=1024, examples=["models.zip"])
    size: int = Field(gt=0, description="Size of the archive in bytes.")
    model_name: str | None = Field(default=None, min_length=1, max_length=300)
    single_put: bool = Field(
        default=False,
        description="Upload the archive with one PUT, which `curl -T` can send. Allowed up to 5 GB. By default, "
        "archives above 64 MB are uploaded in parts.",
    )


class UploadRenewal(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    parts: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None,
        max_length=MAX_PARTS,
        description="Numbers of the parts whose URLs to sign. Default: all parts. An empty list signs only the URLs "
        "that complete and abort the upload.",
        examples=[[3, 4, 7]],
    )


def describe_upload() -> dict[str, Any]:
    """Return the OpenAPI description of the request body, because Powertools does not parse this body."""
    form = {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            # Without an example, Swagger UI fills in `string`, which would become the model's name.
            "model_name": {"type": "string", "example": ""},
        },
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": LargeUpload.model_json_schema()},
        },
    }


def choose_name(in_query: str | None, in_body: str | None) -> str | None:
    """Return the model name from the query or the body. Raises InvalidReferenceError if they differ."""
    if in_query is not None and in_body is not None and in_query != in_body:
        raise errors.InvalidReferenceError(
            f"model_name is {in_query[:100]!r} in the query, but {in_body[:100]!r} in the body. Send it only once.",
            part="model_name",
        )
    return in_body if in_query is None else in_query


@app.post(
    "/upload/local",
    summary="Import the models in a ZIP archive",
    description="Send an archive of up to 4.5 MB as multipart/form-data, in the field `file` (`curl -F "
    "file=@models.zip`). For a larger archive, send JSON with its name and size, and upload the archive to the "
    f"presigned URLs in the response. {IMPORTING}",
    tags=["Uploads"],
    openapi_extensions={"requestBody": describe_upload()},
    responses=describe_responses(
        HTTPStatus.CREATED,
        "The import was accepted. For a form, the response has no body, and `Location` is the path of the first model. "
        "For JSON, the body has the presigned URLs, and `Location` is the path of the task.",
        body="Upload",
        headers=["Location", "Link"],
        problems=[
            errors.InvalidReferenceError,
            errors.InvalidFormError,
            errors.ArchiveRefusedError,
            errors.NoModelInArchiveError,
            errors.ArchiveTooLargeError,
            errors.StorageQuotaError,
            errors.ModelExistsError,
            errors.ImportInProgressError,
            errors.DeletionInProgressError,
            errors.PolicyDeniedError,
            errors.PolicyUnavailableError,
        ],
        has_json_body=True,
    ),
)
def submit_local(model_name: Annotated[str | None, Query(min_length=1, max_length=300)] = None) -> Response[str]:
    submitter, caller = wiring.create_archive_submitter(), read_caller(app.current_event.raw_event)
    form_type = read_form_type(app.current_event)
    if form_type is not None:
        form = read_upload_form(form_type, read_body(app.current_event))
        name = choose_name(model_name, form.model_name)
        return accept_models(submitter.submit_archive(form.content, form.file_name, name, submitted_by=caller))
    if read_body(app.current_event).startswith(_ARCHIVE_STARTS):
        raise errors.InvalidFormError("The body is a ZIP archive, not a form with an archive.")
    upload = read_json(LargeUpload, app.current_event)
    name = choose_name(model_name, upload.model_name)
    task, ticket = submitter.open_upload(
        upload.file_name, upload.size, name, single_put=upload.single_put, submitted_by=caller
    )
    return accept_upload(task, ticket)


@app.post(
    "/upload/tasks/<task_id>/urls",
    summary="Sign the URLs of an upload again",
    description="Presigned URLs expire with the credentials of the function that signed them, which may be before "
    "`expires_at`: S3 then responds with 403 `AccessDenied` or 400 `ExpiredToken`. This route returns new URLs for the "
    "parts that are still missing, as long as the task waits for its upload. Parts that were uploaded stay uploaded. "
    "Only the caller that opened the upload can do this, with `AuthMode=IAM` also another session of the same role.",
    tags=["Uploads"],
    openapi_extensions={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": UploadRenewal.model_json_schema()}},
        }
    },
    responses=describe_responses(
        HTTPStatus.OK,
        "The new URLs, in the form of the response that opened the upload.",
        body="Upload",
        problems=[errors.TaskNotFoundError, errors.UploadNotOpenError, errors.InvalidReferenceError],
        has_json_body=True,
    ),
)
def sign_upload(task_id: str) -> Response[str]:
    renewal = read_json(UploadRenewal, app.current_event)
    caller = read_caller(app.current_event.raw_event)
    return renew_upload(*wiring.create_archive_submitter().renew_upload(task_id, renewal.parts, caller=caller))
