"""GET /v1/upload/tasks, /v1/upload/tasks/{task_id}, /v1/upload/local/{model_id}, /v1/usage and all GET routes of
/v1/models
"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from modelhaul import wiring
from modelhaul.catalog.presentation import present_model, present_task, present_whole_task
from modelhaul.catalog.usage import MAX_UNREAD_DAYS, UNREAD_DAYS, present_usage
from modelhaul.domain.errors import (
    InvalidReferenceError,
    ModelFileNotFoundError,
    ModelNotFoundError,
    SignatureNotFoundError,
    TaskNotFoundError,
)
from modelhaul.domain.models import ModelStatus, Source
from modelhaul.domain.tasks import TaskStatus, describe_missing_task
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.requests import read_greedy_path
from modelhaul.entrypoints.responses import create_document_response, create_json_response, redirect
from modelhaul.settings import StoreSettings

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_tasks, wiring.create_models)

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_RESERVED_TIME = 5000  # milliseconds for the response, after models were counted
BOM_MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.6"


@app.get(
    "/upload/tasks",
    summary="List tasks, newest first",
    description="Returns one page. To request the next page, send the `cursor` of the response as the query parameter "
    "`cursor`. A page can have fewer than `limit` tasks, or none, even if more pages follow. On the last page, "
    "`cursor` is null.",
    tags=["Tasks"],
    responses=describe_responses(HTTPStatus.OK, "A page of tasks.", body="TaskList", problems=[InvalidReferenceError]),
)
def list_tasks(
    source: Annotated[Source | None, Query()] = None,
    status: Annotated[TaskStatus | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
) -> Response[str]:
    page = wiring.create_tasks().list_tasks(source=source, status=status, limit=limit, cursor=cursor)
    return create_json_response({"tasks": [present_task(task) for task in page.tasks], "cursor": page.cursor})


@app.get(
    "/upload/tasks/<task_id>",
    summary="Get a task: the progress and the result of an import",
    tags=["Tasks"],
    responses=describe_responses(
        HTTPStatus.OK, "The task, with the result of each model.", body="Task", problems=[TaskNotFoundError]
    ),
)
def read_task(task_id: str) -> Response[str]:
    task = wiring.create_tasks().find_task(task_id)
    if task is None:
        raise TaskNotFoundError(describe_missing_task(task_id))
    bucket = StoreSettings.read().models_bucket
    return create_json_response(
        present_whole_task(task, wiring.create_models().find_models(task.model_ids), bucket=bucket)
    )


@app.get(
    "/upload/local/<model_id>",
    summary="Get a model imported from a ZIP archive",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.OK, "The model's record.", body="ModelRecord", problems=[ModelNotFoundError]
    ),
)
def read_local_model(model_id: str) -> Response[str]:
    model = wiring.create_catalog().find_model(model_id, source=Source.LOCAL)
    return create_json_response(present_model(model, bucket=StoreSettings.read().models_bucket))


@app.get(
    "/models",
    summary="List models, newest first",
    description="Returns one page of READY models. `name` selects models whose name contains the value, "
    "case-insensitively. To request the next page, send the `cursor` of the response as the query parameter `cursor`. "
    "A page can have fewer than `limit` models, or none, even if more pages follow. On the last page, "
    "`cursor` is null.",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.OK, "A page of models.", body="ModelList", problems=[InvalidReferenceError]
    ),
)
def list_models(
    source: Annotated[Source | None, Query()] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
) -> Response[str]:
    page = wiring.create_models().list_models(source=source, name=name, limit=limit, cursor=cursor)
    bucket = StoreSettings.read().models_bucket
    return create_json_response(
        {"models": [present_model(model, bucket=bucket) for model in page.models], "cursor": page.cursor}
    )


@app.get(
    "/models/<model_id>",
    summary="Get a model and its manifest",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.OK,
        "The model's record. For a READY model, also its manifest, and a presigned URL of the manifest that expires "
        "after an hour. A manifest of more than 4 MB is available from the URL only.",
        body="WholeModel",
        problems=[ModelNotFoundError],
    ),
)
def read_model(model_id: str) -> Response[str]:
    catalog = wiring.create_catalog()
    model = catalog.find_model(model_id)
    shown = present_model(model, bucket=StoreSettings.read().models_bucket)
    if model.status is ModelStatus.READY:
        shown["manifest_url"] = catalog.sign_manifest(model)
        if (manifest := catalog.read_manifest(model)) is not None:
            shown["manifest"] = manifest
    return create_json_response(shown)


@app.get(
    "/models/<model_id>/signature",
    summary="Get the signature of a model",
    description="A Sigstore bundle of OpenSSF Model Signing v1, which lists the SHA-256 of every file. Save it as a "
    "file and verify the downloaded model with `modelhaul verify` or `model_signing verify key`.",
    tags=["Models"],
    responses={
        **describe_responses(
            HTTPStatus.OK,
            "The signature file.",
            body="SignatureBundle",
            media_type=BUNDLE_MEDIA_TYPE,
            problems=[ModelNotFoundError, SignatureNotFoundError],
        ),
        **describe_responses(
            HTTPStatus.FOUND,
            "Redirect to a presigned URL of a signature of more than 4 MB. The URL expires after an hour and needs no "
            "API key.",
            headers=["Location"],
        ),
    },
)
def read_signature(model_id: str) -> Response[str]:
    return create_document_response(wiring.create_catalog().read_signature(model_id), BUNDLE_MEDIA_TYPE)


@app.get(
    "/models/<model_id>/bom",
    summary="Get the bill of materials of a model",
    description="CycloneDX 1.6: the model with its source, commit and declared licenses, its files with their digests, "
    "and the findings of the inspection.",
    tags=["Models"],
    responses={
        **describe_responses(
            HTTPStatus.OK,
            "The bill of materials.",
            body="Bom",
            media_type=BOM_MEDIA_TYPE,
            problems=[ModelNotFoundError],
        ),
        **describe_responses(
            HTTPStatus.FOUND,
            "Redirect to a presigned URL of a bill of materials of more than 4 MB. The URL expires after an hour and "
            "needs no API key.",
            headers=["Location"],
        ),
    },
)
def read_bom(model_id: str) -> Response[str]:
    return create_document_response(wiring.create_catalog().read_bom(model_id), BOM_MEDIA_TYPE)


@app.get(
    "/models/<model_id>/files/.+",
    summary="Download a file",
    description="`path` is the path of the file in the manifest.",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.FOUND,
        "Redirect to a presigned URL of the file, which expires after an hour and needs no API key.",
        headers=["Location"],
        problems=[ModelNotFoundError, ModelFileNotFoundError],
    ),
)
def read_file(model_id: str) -> Response[str]:
    path = read_greedy_path(app.current_event, "path")
    return redirect(wiring.create_catalog().sign_file(model_id, path))


@app.get(
    "/usage",
    summary="Get the use of storage",
    description="Sums over all READY models: by source, the 20 names with most bytes, the 20 largest models, and the "
    "models that were not read for `unread_days` days. If there are too many models to count in the time of a request, "
    "`is_complete` is false, and only the newest models are counted.",
    tags=["Models"],
    responses=describe_responses(HTTPStatus.OK, "The use of storage.", body="Usage"),
)
def read_usage(
    unread_days: Annotated[int, Query(ge=1, le=MAX_UNREAD_DAYS)] = UNREAD_DAYS,
) -> Response[str]:
    context = app.lambda_context
    usage = wiring.create_usage_reader().read_usage(
        unread_days, lambda: context.get_remaining_time_in_millis() > _RESERVED_TIME
    )
    return create_json_response(present_usage(usage))
