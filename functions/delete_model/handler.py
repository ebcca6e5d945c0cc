"""DELETE /v1/models/{model_id}"""

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.http import create_app, create_handler

app = create_app()
handler = create_handler(app)


@app.delete("/models/<model_id>")
def delete_model(model_id: str) -> Response[str]:
    context = app.lambda_context
    gone = wiring.create_deleter().delete_model(model_id, lambda: context.get_remaining_time_in_millis() / 1000)
    return Response(status_code=(HTTPStatus.NO_CONTENT if gone else HTTPStatus.ACCEPTED).value, body="")
