"""POST /v1/upload/local"""

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel, ConfigDict, Field

from modelhaul import errors, wiring
from modelhaul.documenting import IMPORTING, describe_answers
from modelhaul.forms import read_upload_form
from modelhaul.http import (
    accept_models,
    accept_upload,
    create_app,
    create_handler,
    read_body,
    read_form_type,
    read_json,
)

app = create_app()
handler = create_handler(app, takes_forms=True)
wiring.build_early(wiring.create_archive_intake)


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
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": LargeUpload.model_json_schema()},
        },
    }


@app.post(
    "/upload/local",
    summary="Import the models of a ZIP archive",
    description="A form with the archive in the field `file`, up to 4.5 MB (`curl -F file=@models.zip`); or, for "
    f"larger ones, JSON with its size, which is answered with presigned addresses for the bytes. {IMPORTING}",
    tags=["Uploads"],
    openapi_extensions={"requestBody": describe_upload()},
    responses=describe_answers(
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
        validates=True,
    ),
)
def submit_local(model_name: Annotated[str | None, Query(min_length=1, max_length=300)] = None) -> Response[str]:
    intake = wiring.create_archive_intake()
    form_type = read_form_type(app.current_event)
    if form_type is not None:
        form = read_upload_form(form_type, read_body(app.current_event))
        return accept_models(intake.submit_archive(form.content, form.file_name, model_name or form.model_name))
    upload = read_json(LargeUpload, app.current_event)
    task, ticket = intake.open_upload(upload.file_name, upload.size, model_name or upload.model_name)
    return accept_upload(task, ticket)
