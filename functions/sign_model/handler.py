"""POST /v1/models/{model_id}/signature"""

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.catalog.presentation import present_signature
from modelhaul.domain.errors import ModelNotFoundError, SigningRefusedError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.responses import create_json_response, create_signature_response

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_published_signer)


@app.post(
    "/models/<model_id>/signature",
    summary="Sign a model",
    description="Signs a READY model that was published before the stack signed models, or that was signed with "
    "another key. The digests come from the manifest; no file is read. The route exists only in stacks with "
    "Signing=KMS, which sign each model when it is published.",
    tags=["Models"],
    responses={
        **describe_responses(
            HTTPStatus.CREATED,
            "The model was signed.",
            body="NewSignature",
            headers=["Location"],
            problems=[ModelNotFoundError, SigningRefusedError],
        ),
        **describe_responses(HTTPStatus.OK, "The model was already signed with this key.", body="NewSignature"),
    },
)
def sign_model(model_id: str) -> Response[str]:
    caller = read_caller(app.current_event.raw_event)
    signature, is_new = wiring.create_published_signer().sign_model(model_id, signed_by=caller)
    shown = present_signature(signature)
    return create_signature_response(model_id, shown) if is_new else create_json_response(shown)
