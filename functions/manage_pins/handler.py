"""PUT and DELETE /v1/models/{model_id}/pin"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from modelhaul import wiring
from modelhaul.catalog.presentation import present_model
from modelhaul.domain.errors import ModelNotFoundError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.pins import PinRequest
from modelhaul.entrypoints.responses import create_json_response
from modelhaul.settings import StoreSettings

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_pinner)


@app.put(
    "/models/<model_id>/pin",
    summary="Pin a model",
    description="A pinned model is not deleted: neither by retention rules nor by `DELETE /v1/models/{model_id}`. A "
    "new pin replaces the earlier one. Only READY models can be pinned. Send at least `{}` as the body.",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.OK,
        "The model's record, with the pin.",
        body="ModelRecord",
        problems=[ModelNotFoundError],
        has_json_body=True,
    ),
)
def pin_model(model_id: str, request: Annotated[PinRequest, Body()]) -> Response[str]:
    caller = read_caller(app.current_event.raw_event)
    model = wiring.create_pinner().pin_model(model_id, pinned_by=caller, reason=request.reason)
    return create_json_response(present_model(model, bucket=StoreSettings.read().models_bucket))


@app.delete(
    "/models/<model_id>/pin",
    summary="Unpin a model",
    description="A repeated request is a no-op.",
    tags=["Models"],
    responses=describe_responses(HTTPStatus.NO_CONTENT, "The model is not pinned.", problems=[ModelNotFoundError]),
)
def unpin_model(model_id: str) -> Response[str]:
    wiring.create_pinner().unpin_model(model_id, unpinned_by=read_caller(app.current_event.raw_event))
    return Response(status_code=HTTPStatus.NO_CONTENT.value, body="")
