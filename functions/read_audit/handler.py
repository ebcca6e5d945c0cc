"""GET /v1/audit"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from modelhaul import wiring
from modelhaul.catalog.audit import present_entry
from modelhaul.domain.audit import AuditAction, AuditFilter
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.responses import create_json_response
from modelhaul.entrypoints.times import Moment
from modelhaul.settings import AuditSettings

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_audit_reader)


@app.get(
    "/audit",
    summary="List audit entries, newest first",
    description="Who did what, and when. An action is recorded if `AuditRetentionDays` is not 0 when it happens, or "
    "if the stack has a policy. "
    "Returns one page. To request the next page, send the `cursor` of the response as the query parameter `cursor`, "
    "with the same filters. A page can have fewer than `limit` entries, or none, even if more pages follow. On the "
    "last page, `cursor` is null.",
    tags=["Audit"],
    responses=describe_responses(
        HTTPStatus.OK, "A page of entries.", body="AuditList", problems=[InvalidReferenceError]
    ),
)
def list_entries(  # noqa: PLR0913, PLR0917 - a parameter for each filter
    action: Annotated[AuditAction | None, Query()] = None,
    actor: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=2000,
            description="Who did it, as in an entry. `arn:aws:sts::ACCOUNT:assumed-role/ROLE` stands for all sessions "
            "of the role.",
        ),
    ] = None,
    model_id: Annotated[str | None, Query(min_length=1, max_length=100)] = None,
    task_id: Annotated[str | None, Query(min_length=1, max_length=100)] = None,
    since: Annotated[Moment, Query(description="Start (inclusive), as ISO 8601 with a time zone.")] = None,
    until: Annotated[Moment, Query(description="End (exclusive), as ISO 8601 with a time zone.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
) -> Response[str]:
    wanted = AuditFilter(action=action, actor=actor, model_id=model_id, task_id=task_id, since=since, until=until)
    page = wiring.create_audit_reader().list_entries(wanted, limit=limit, cursor=cursor)
    return create_json_response(
        {
            "entries": [present_entry(entry) for entry in page.entries],
            "cursor": page.cursor,
            "retention_days": AuditSettings.read().audit_retention_days,
        }
    )
