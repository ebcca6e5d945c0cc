"""POST and GET /v1/follows, GET, PATCH and DELETE /v1/follows/{follow_id}"""

from collections.abc import Sequence
from http import HTTPStatus
from itertools import batched
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from modelhaul import wiring
from modelhaul.domain.errors import (
    FollowExistsError,
    FollowLimitError,
    FollowNotFoundError,
    InvalidReferenceError,
)
from modelhaul.domain.follows import Follow
from modelhaul.domain.models import Source
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import RESOLVE_PROBLEMS, describe_responses
from modelhaul.entrypoints.follows import FollowRequest, FollowUpdate, present_follows
from modelhaul.entrypoints.responses import create_follow_response, create_json_response

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_follower)

_MAX_MODELS = 90  # that one request finds


@app.post(
    "/follows",
    summary="Follow a revision",
    description="Checks the revision now and then regularly, and imports its commit when it has moved. A source that "
    "cannot be resolved is rejected. To retry the request safely, send the header `Idempotency-Key` with a unique "
    "value.",
    tags=["Follows"],
    responses=describe_responses(
        HTTPStatus.CREATED,
        "The follow was created.",
        body="Follow",
        headers=["Location"],
        problems=[*RESOLVE_PROBLEMS, InvalidReferenceError, FollowExistsError, FollowLimitError],
        has_json_body=True,
    ),
)
def create_follow(request: Annotated[FollowRequest, Body()]) -> Response[str]:
    follow = wiring.create_follower().create(
        Source(request.source),
        request.name,
        request.revision,
        request.selection.selection,
        every=request.interval,
        keep_newest=request.keep_newest,
        created_by=read_caller(app.current_event.raw_event),
    )
    return create_follow_response(follow.id, _present([follow])[0])


@app.get(
    "/follows",
    summary="List follows, newest first",
    tags=["Follows"],
    responses=describe_responses(HTTPStatus.OK, "All follows.", body="FollowList"),
)
def list_follows() -> Response[str]:
    return create_json_response({"follows": _present(wiring.create_follows().list_follows())})


@app.get(
    "/follows/<follow_id>",
    summary="Show a follow",
    tags=["Follows"],
    responses=describe_responses(HTTPStatus.OK, "The follow.", body="Follow", problems=[FollowNotFoundError]),
)
def show_follow(follow_id: str) -> Response[str]:
    return create_json_response(_present([wiring.create_follower().find(follow_id)])[0])


@app.patch(
    "/follows/<follow_id>",
    summary="Pause, resume or change a follow",
    tags=["Follows"],
    responses=describe_responses(
        HTTPStatus.OK, "The changed follow.", body="Follow", problems=[FollowNotFoundError], has_json_body=True
    ),
)
def change_follow(follow_id: str, request: Annotated[FollowUpdate, Body()]) -> Response[str]:
    caller = read_caller(app.current_event.raw_event)
    follow = wiring.create_follower().change(follow_id, request.change, changed_by=caller)
    return create_json_response(_present([follow])[0])


@app.delete(
    "/follows/<follow_id>",
    summary="Delete a follow",
    description="Imported models remain.",
    tags=["Follows"],
    responses=describe_responses(HTTPStatus.NO_CONTENT, "The follow was deleted.", problems=[FollowNotFoundError]),
)
def delete_follow(follow_id: str) -> Response[str]:
    wiring.create_follower().delete(follow_id, deleted_by=read_caller(app.current_event.raw_event))
    return Response(status_code=HTTPStatus.NO_CONTENT.value, body="")


def _present(follows: Sequence[Follow]) -> list[dict[str, Any]]:
    """Return follows with the status of the models that they imported last."""
    ids = dict.fromkeys(follow.last_import.model_id for follow in follows if follow.last_import)
    repository = wiring.create_models()
    models = [model for batch in batched(ids, _MAX_MODELS, strict=False) for model in repository.find_models(batch)]
    return present_follows(follows, models)
