"""GET /v1/retention"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from modelhaul import wiring
from modelhaul.catalog.presentation import present_model
from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.responses import create_json_response
from modelhaul.settings import StoreSettings

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_retention_planner)


@app.get(
    "/retention",
    summary="List the models that retention would delete",
    description="Applies the retention rules of the policy and the `keep_newest` of follows as the daily run does, "
    "but deletes nothing. `models` has the first `limit` models, `count` and `size` are those of all.",
    tags=["Models"],
    responses=describe_responses(
        HTTPStatus.OK, "What a run would delete now.", body="RetentionPlan", problems=[PolicyUnavailableError]
    ),
)
def read_retention(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response[str]:
    context = app.lambda_context
    plan = wiring.create_retention_planner().plan(lambda: context.get_remaining_time_in_millis() / 1000)
    bucket = StoreSettings.read().models_bucket
    shown = [
        {
            **present_model(deletion.model, bucket=bucket, with_gate=False),
            "rule": deletion.limits.rule,
            "reason": deletion.reason,
        }
        for deletion in plan.deletions[:limit]
    ]
    return create_json_response(
        {"models": shown, "count": len(plan.deletions), "size": plan.size, "complete": plan.is_complete}
    )
