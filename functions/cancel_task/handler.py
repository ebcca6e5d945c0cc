"""DELETE /v1/upload/tasks/{task_id}"""

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.domain.errors import TaskEndedError, TaskNotFoundError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import describe_responses

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_finisher)


@app.delete(
    "/upload/tasks/<task_id>",
    summary="Cancel an import",
    description="The models of the import are not published. The next import of the same content reuses the verified "
    "files.",
    tags=["Tasks"],
    responses=describe_responses(
        HTTPStatus.NO_CONTENT, "The import was cancelled.", problems=[TaskNotFoundError, TaskEndedError]
    ),
)
def cancel_task(task_id: str) -> Response[str]:
    wiring.create_finisher().cancel(task_id, cancelled_by=read_caller(app.current_event.raw_event))
    return Response(status_code=HTTPStatus.NO_CONTENT.value, body="")
