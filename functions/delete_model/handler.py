"""DELETE /v1/models/{model_id}"""

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.domain.errors import ImportInProgressError, ModelNotFoundError, ModelPinnedError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import describe_responses

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_deleter)


@app.delete(
    "/models/<model_id>",
    summary="Delete a model",
    description="Deletes the model's files, manifest and record. Requests for the model return 404 immediately. Other "
    "models with copies of its files are not affected. A pinned model is not deleted.",
    tags=["Models"],
    responses={
        **describe_responses(
            HTTPStatus.NO_CONTENT,
            "The model was deleted.",
            problems=[ModelNotFoundError, ImportInProgressError, ModelPinnedError],
        ),
        **describe_responses(HTTPStatus.ACCEPTED, "The deletion continues in the background."),
    },
)
def delete_model(model_id: str) -> Response[str]:
    context = app.lambda_context
    is_deleted = wiring.create_deleter().delete_model(
        model_id,
        lambda: context.get_remaining_time_in_millis() / 1000,
        deleted_by=read_caller(app.current_event.raw_event),
    )
    return Response(status_code=(HTTPStatus.NO_CONTENT if is_deleted else HTTPStatus.ACCEPTED).value, body="")
