"""POST /v1/upload/local"""

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel, ConfigDict, Field

from modelhaul import wiring
from modelhaul.domain import errors
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import IMPORTING, describe_responses
from modelhaul.entrypoints.forms import read_upload_form
from modelhaul.entrypoints.requests import read_body, read_form_type, read_json
from modelhaul.entrypoints.responses import accept_models, accept_upload

app = create_app()
handler = create_handler(app, takes_forms=True)
wiring.build_early(wiring.create_archive_submitter)


class LargeUpload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file_name: str = Field(min_length=1, max_length=1024, examples=["models.zip"])
    size: int = Field(gt=0, description="bytes")
    model_name: str | None = Field(default=None, min_length=1, max_length=300)


def describe_upload() -> dict[str, Any]:
    """The body of the request, which Powertools does not read."""
    form = {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, "model_name": {"type": "string"}},
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
    """Raises InvalidReferenceError for two different names."""
    if in_query is not None and in_body is not None and in_query != in_body:
        raise errors.InvalidReferenceError(
            f"model_name is {in_query[:100]!r} in the query and {in_body[:100]!r} in the body; send one",
            part="model_name",
        )
    return in_body if in_query is None else in_query


@app.post(
    "/upload/local",
    summary="Import the models of a ZIP archive",
    description="A form with the archive in the field `file`, up to 4.5 MB (`curl -F file=@models.zip`); or, for "
    f"larger ones, JSON with its size, which is answered with presigned addresses for the bytes. {IMPORTING}",
    tags=["Uploads"],
    openapi_extensions={"requestBody": describe_upload()},
    responses=describe_responses(
        HTTPStatus.CREATED,
        "Accepted. For a form no body, and the Location of the first model; for JSON where to send the bytes, and the "
        "Location of the task.",
        body="Upload",
        headers=["Location", "Link"],
        problems=[
            errors.InvalidReferenceError,
            errors.InvalidFormError,
            errors.ArchiveRefusedError,
            errors.NoModelInArchiveError,
            errors.ArchiveTooLargeError,
            errors.ModelExistsError,
            errors.ImportInProgressError,
            errors.DeletionInProgressError,
        ],
        takes_json=True,
    ),
)
def submit_local(model_name: Annotated[str | None, Query(min_length=1, max_length=300)] = None) -> Response[str]:
    submitter = wiring.create_archive_submitter()
    form_type = read_form_type(app.current_event)
    if form_type is not None:
        form = read_upload_form(form_type, read_body(app.current_event))
        name = choose_name(model_name, form.model_name)
        return accept_models(submitter.submit_archive(form.content, form.file_name, name))
    upload = read_json(LargeUpload, app.current_event)
    name = choose_name(model_name, upload.model_name)
    task, ticket = submitter.open_upload(upload.file_name, upload.size, name)
    return accept_upload(task, ticket)
