"""DELETE /v1/upload/tasks/{task_id}"""

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.http import create_app, create_handler

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_closer)


@app.delete("/upload/tasks/<task_id>")
def cancel_task(task_id: str) -> Response[str]:
    wiring.create_closer().cancel(task_id)
    return Response(status_code=HTTPStatus.NO_CONTENT.value, body="")
