"""GET /v1/upload/tasks, /v1/upload/tasks/{task_id} and /v1/upload/local/{model_id}"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from modelhaul import wiring
from modelhaul.closing import describe_missing_task
from modelhaul.documenting import describe_answers
from modelhaul.errors import InvalidReferenceError, ModelNotFoundError, TaskNotFoundError
from modelhaul.http import answer_json, create_app, create_handler
from modelhaul.model import Source
from modelhaul.presentation import present_model, present_task, present_whole_task
from modelhaul.settings import StoreSettings
from modelhaul.task import TaskStatus

app = create_app()
handler = create_handler(app)


@app.get(
    "/upload/tasks",
    summary="List imports, newest first",
    description="A page may be short, or empty, and still have a cursor.",
    tags=["Tasks"],
    responses=describe_answers(
        HTTPStatus.OK, "A page.", body="TaskList", problems=[InvalidReferenceError], validates=True
    ),
)
def list_tasks(
    source: Annotated[Source | None, Query()] = None,
    status: Annotated[TaskStatus | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
) -> Response[str]:
    page = wiring.create_ledger().list_tasks(source=source, status=status, limit=limit, cursor=cursor)
    return answer_json({"tasks": [present_task(task) for task in page.tasks], "cursor": page.cursor})


@app.get(
    "/upload/tasks/<task_id>",
    summary="How far an import is",
    tags=["Tasks"],
    responses=describe_answers(HTTPStatus.OK, "The task.", body="Task", problems=[TaskNotFoundError]),
)
def read_task(task_id: str) -> Response[str]:
    ledger = wiring.create_ledger()
    task = ledger.find_task(task_id)
    if task is None:
        raise TaskNotFoundError(describe_missing_task(task_id))
    bucket = StoreSettings.read().models_bucket
    return answer_json(present_whole_task(task, ledger.find_models(task.model_ids), bucket=bucket))


@app.get(
    "/upload/local/<model_id>",
    summary="A model from an archive",
    tags=["Models"],
    responses=describe_answers(HTTPStatus.OK, "The model's record.", body="ModelRecord", problems=[ModelNotFoundError]),
)
def read_local_model(model_id: str) -> Response[str]:
    model = wiring.create_ledger().find_model(model_id)
    if model is None or model.resolved.source is not Source.LOCAL:
        raise ModelNotFoundError(f"There is no model {model_id[:64]!r} from an archive.")
    return answer_json(present_model(model, bucket=StoreSettings.read().models_bucket))
