"""Successful responses of the API."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response

from modelhaul.catalog.presentation import format_time
from modelhaul.catalog.read import Document
from modelhaul.domain.archives import UploadTicket
from modelhaul.domain.tasks import Task
from modelhaul.entrypoints.problems import locate_task


def accept_task(task: Task) -> Response[str]:
    """Create a 201 response with the task's Location and an empty body."""
    return _create_response(HTTPStatus.CREATED, headers={"Location": locate_task(task.id)})


def accept_models(task: Task) -> Response[str]:
    """Create a 201 response with the Location of the task's first model, a link to the task, and an empty body."""
    link = f'<{locate_task(task.id)}>; rel="status"'
    return _create_response(
        HTTPStatus.CREATED, headers={"Location": f"/v1/upload/local/{task.model_ids[0]}", "Link": link}
    )


def accept_upload(task: Task, ticket: UploadTicket) -> Response[str]:
    """Create a 201 response with the task's Location. The body has the presigned URLs and when they expire."""
    return _create_response(
        HTTPStatus.CREATED, _present_upload(task, ticket), headers={"Location": locate_task(task.id)}
    )


def renew_upload(task: Task, ticket: UploadTicket) -> Response[str]:
    """Create a 200 response with the presigned URLs, in the form of `accept_upload`."""
    return create_json_response(_present_upload(task, ticket))


def _present_upload(task: Task, ticket: UploadTicket) -> dict[str, Any]:
    if ticket.put_url is not None:
        upload: dict[str, Any] = {"method": "PUT", "url": ticket.put_url}
    else:
        upload = {
            "parts": [
                {"number": part.number, "method": "PUT", "url": part.url, "start": part.start, "end": part.end}
                for part in ticket.parts
            ],
            "complete": {
                "method": "POST",
                "url": ticket.complete_url,
                "body": "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>ETAG_OF_PART_1</ETag></Part>"
                "…</CompleteMultipartUpload>",
            },
            "abort": {"method": "DELETE", "url": ticket.abort_url},
        }
    return {
        "task_id": task.id,
        "expires_at": format_time(ticket.expires_at),
        "upload_until": format_time(task.upload_until),
        "upload": upload,
    }


def redirect(url: str) -> Response[str]:
    """Create a 302 response that must not be cached, because the URL expires."""
    return _create_response(HTTPStatus.FOUND, headers={"Location": url, "Cache-Control": "no-store"})


def create_json_response(body: dict[str, Any]) -> Response[str]:
    """Create a 200 response with a JSON body."""
    return _create_response(HTTPStatus.OK, body)


def create_signature_response(model_id: str, signature: dict[str, Any]) -> Response[str]:
    """Create a 201 response with the Location of the model's signature, and its record."""
    return _create_response(HTTPStatus.CREATED, signature, headers={"Location": f"/v1/models/{model_id}/signature"})


def create_follow_response(follow_id: str, follow: dict[str, Any]) -> Response[str]:
    """Create a 201 response with the Location of a follow, and the follow."""
    return _create_response(HTTPStatus.CREATED, follow, headers={"Location": f"/v1/follows/{follow_id}"})


def create_document_response(document: Document, media_type: str) -> Response[str]:
    """Create a 200 response with the document, or a redirect to it."""
    if document.url is not None:
        return redirect(document.url)
    return Response(status_code=HTTPStatus.OK.value, content_type=media_type, body=document.text)


def _create_response(
    status: HTTPStatus, body: dict[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
) -> Response[str]:
    return Response(
        status_code=status.value,
        content_type="application/json",
        body="" if body is None else json.dumps(body, ensure_ascii=False),
        headers=headers,
    )
