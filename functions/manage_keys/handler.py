"""POST and GET /v1/keys, DELETE /v1/keys/{key_id}"""

import json
import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from modelhaul import wiring
from modelhaul.domain import read_keys
from modelhaul.domain.audit import describe_key_creation, describe_key_deletion
from modelhaul.domain.errors import InvalidIdempotencyKeyError, KeyNotFoundError
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.logs import create_logger
from modelhaul.entrypoints.read_keys import KeyRequest, present_created_key, present_key
from modelhaul.entrypoints.responses import create_json_response
from modelhaul.settings import HubUrlSettings

app = create_app()
handler = create_handler(app, stores_responses=False)
wiring.build_early(wiring.create_read_keys)

_KEY_ID = re.compile(r"[0-9a-f]{16}")


@app.post(
    "/keys",
    summary="Create a read key",
    description="Clients of the Hugging Face Hub send the key as their token (`HF_TOKEN`) to the Hub read API. The "
    "response is the only place that shows the key. This route does not accept an `Idempotency-Key`, because responses "
    "with keys are not stored. If a response is lost, nobody has its key: delete the key, and create another one.",
    tags=["Keys"],
    responses=describe_responses(
        HTTPStatus.CREATED,
        "The key and its record.",
        body="CreatedKey",
        problems=[InvalidIdempotencyKeyError],
        has_json_body=True,
    ),
)
def create_key(request: Annotated[KeyRequest, Body()]) -> Response[str]:
    caller = read_caller(app.current_event.raw_event)
    now = datetime.now(UTC)
    key, record = read_keys.create_key(request.name, request.scopes, request.expires_at, now, created_by=caller)
    wiring.create_read_keys().add_key(record, entry=describe_key_creation(record))
    create_logger().info("created read key", key_id=record.key_id)
    return Response(
        status_code=HTTPStatus.CREATED.value,
        content_type="application/json",
        body=json.dumps(present_created_key(key, record), ensure_ascii=False),
        headers={"Cache-Control": "no-store"},
    )


@app.get(
    "/keys",
    summary="List read keys, newest first",
    description="An expired key is listed for 30 days. `hub_url` is the URL of the Hub read API, for the variable "
    "`HF_ENDPOINT` of clients.",
    tags=["Keys"],
    responses=describe_responses(HTTPStatus.OK, "The records of the keys, without the keys.", body="KeyList"),
)
def list_keys() -> Response[str]:
    now = datetime.now(UTC)
    keys = [present_key(record, now) for record in wiring.create_read_keys().list_keys()]
    return create_json_response({"keys": keys, "hub_url": HubUrlSettings.read().hub_url})


@app.delete(
    "/keys/<key_id>",
    summary="Delete a read key",
    description="Requests with the key are rejected after at most a minute.",
    tags=["Keys"],
    responses=describe_responses(HTTPStatus.NO_CONTENT, "The key was deleted.", problems=[KeyNotFoundError]),
)
def delete_key(key_id: str) -> Response[str]:
    if not _KEY_ID.fullmatch(key_id):
        # The message does not repeat the value, which may be a key.
        raise KeyNotFoundError("Key not found. A key ID has 16 hexadecimal digits.")
    caller, keys = read_caller(app.current_event.raw_event), wiring.create_read_keys()
    record = keys.find_key(key_id)
    if record is None or not keys.remove_key(key_id, entry=describe_key_deletion(record, caller, datetime.now(UTC))):
        raise KeyNotFoundError(f"Key {key_id} not found.")
    create_logger().info("deleted read key", key_id=key_id)
    return Response(status_code=HTTPStatus.NO_CONTENT.value, body="")
