"""POST /v1/upload/huggingface"""

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import Field

from modelhaul import wiring
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.domain.models import Source
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import IMPORTING, describe_import
from modelhaul.entrypoints.responses import accept_task
from modelhaul.entrypoints.submissions import HubImport

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_submitter, wiring.load_hub_client)


class HuggingFaceImport(HubImport):
    model_tag: str = Field(min_length=1, max_length=200, examples=["google-bert/bert-base-uncased"])
    revision: str = Field(default="main", min_length=1, max_length=255)


@app.post(
    "/upload/huggingface",
    summary="Import a model from the Hugging Face Hub",
    description=IMPORTING,
    tags=["Uploads"],
    responses=describe_import(InvalidReferenceError),
)
def submit_huggingface(request: Annotated[HuggingFaceImport, Body()]) -> Response[str]:
    task = wiring.create_submitter().submit(
        Source.HUGGINGFACE,
        request.model_tag,
        request.revision,
        request.selection,
        submitted_by=read_caller(app.current_event.raw_event),
    )
    return accept_task(task)
