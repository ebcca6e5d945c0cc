"""Client of the HTTP API."""

import os
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import requests
import urllib3

from modelhaul_cli.configuration import INSTRUCTIONS, Configuration
from modelhaul_cli.errors import ConflictError, NotFoundError
from modelhaul_cli.http_session import TIMEOUT, open_session, translate_network_errors
from modelhaul_cli.problems import create_error, create_unexpected_response_error
from modelhaul_cli.retries import iterate_attempts
from modelhaul_cli.signing import open_signer
from modelhaul_cli.store import ObjectStore

type Json = dict[str, Any]

MAX_PAGE_SIZE = 100
FIRST_TIMEOUT = (4.0, 30.0)  # API Gateway responds within 29 seconds


class ApiClient:
    """Methods for the routes of the API. Transient errors are retried. POST requests that start an import have an
    Idempotency-Key, so that a retry after a lost response does not start a second import.

    All methods raise CommandError. Thread-safe. `report` receives a message before each wait.
    """

    def __init__(self, configuration: Configuration, report: Callable[[str], None]) -> None:
        self._url = configuration.url
        self._report = report
        self._session = open_session(configuration.url)
        if configuration.key:
            self._session.headers["x-api-key"] = configuration.key
        else:
            self._session.auth = open_signer(configuration.url, os.environ, INSTRUCTIONS)

    def submit(self, source: str, body: Json) -> str:
        """Submit an import and return the task ID. `source` is the last segment of the route."""
        response = self._post(f"upload/{source}", json=body)
        return self._read_task_id(response, response.headers.get("Location"))

    def submit_archive(self, file_name: str, content: bytes, model_name: str | None) -> str:
        """Submit a ZIP archive in the request body and return the task ID."""
        # Encoded once for all attempts: a new boundary would change the body for the same Idempotency-Key.
        form, content_type = urllib3.encode_multipart_formdata({"file": (file_name, content, "application/zip")})
        params = {"model_name": model_name} if model_name else None
        response = self._post("upload/local", params=params, data=form, content_type=content_type)
        return self._read_task_id(response, response.links.get("status", {}).get("url"))

    def open_upload(self, file_name: str, size: int, model_name: str | None) -> Json:
        """Open an upload of a larger ZIP archive. Returns `task_id`, `expires_at` and `upload` (the presigned URLs)."""
        body: Json = {"file_name": file_name, "size": size}
        if model_name:
            body["model_name"] = model_name
        return self._read_json(self._post("upload/local", json=body))

    def renew_upload(self, task_id: str, parts: Sequence[int]) -> Json:
        """Sign the URLs of an upload again. Returns the same as `open_upload`, only with the parts of these numbers."""
        route = f"upload/tasks/{quote(task_id, safe='')}/urls"
        return self._read_json(self._post(route, json={"parts": list(parts)}))

    def read_task(self, task_id: str, *, patient: bool = False) -> Json:
        """Return a task. With `patient`, wait longer for a server that does not respond."""
        return self._read_json(self._request("GET", f"upload/tasks/{quote(task_id, safe='')}", patient=patient))

    def list_tasks(self, limit: int, **filters: str | None) -> tuple[list[Json], bool]:
        return self._list("upload/tasks", "tasks", limit, filters)

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. No-op if it is already cancelled. Raises ConflictError if it has already ended."""
        try:
            self._request("DELETE", f"upload/tasks/{quote(task_id, safe='')}")
        except ConflictError:
            # An earlier attempt of this request may have cancelled it, with its response lost.
            if self.read_task(task_id).get("stage") != "CANCELLED":
                raise

    def list_models(self, limit: int, **filters: str | None) -> tuple[list[Json], bool]:
        return self._list("models", "models", limit, filters)

    def read_model(self, model_id: str) -> Json:
        return self._read_json(self._request("GET", f"models/{quote(model_id, safe='')}"))

    def delete_model(self, model_id: str) -> bool:
        """Delete a model. Returns False if its remaining files are still being deleted in the background."""
        response = self._delete(f"models/{quote(model_id, safe='')}")
        return response is None or response.status_code != HTTPStatus.ACCEPTED

    def read_usage(self, unread_days: int) -> Json:
        """Return the use of storage."""
        return self._read_json(self._request("GET", "usage", params={"unread_days": str(unread_days)}))

    def pin_model(self, model_id: str, reason: str | None) -> Json:
        """Pin a model. Returns its record."""
        body = {} if reason is None else {"reason": reason}
        return self._read_json(self._request("PUT", f"models/{quote(model_id, safe='')}/pin", json=body))

    def unpin_model(self, model_id: str) -> None:
        self._request("DELETE", f"models/{quote(model_id, safe='')}/pin")

    def read_retention(self, limit: int) -> Json:
        """Return what retention would delete: `models` (at most `limit`), `count`, `size` and `complete`."""
        return self._read_json(self._request("GET", "retention", params={"limit": str(limit)}))

    def find_file_url(self, model_id: str, path: str) -> str:
        """Return the presigned URL of a file."""
        response = self._request("GET", f"models/{quote(model_id, safe='')}/files/{quote(path)}")
        location = response.headers.get("Location")
        if response.status_code != HTTPStatus.FOUND or not location:
            raise create_unexpected_response_error(response, "without the URL of a file")
        return location

    def read_signature(self, model_id: str, store: ObjectStore) -> bytes:
        """Return the signature file of a model."""
        return self._read_document(f"models/{quote(model_id, safe='')}/signature", store)

    def sign_model(self, model_id: str) -> Json:
        """Sign a model, if it is not signed yet. Returns the record of its signature."""
        return self._read_json(self._post(f"models/{quote(model_id, safe='')}/signature"))

    def read_bom(self, model_id: str, store: ObjectStore) -> bytes:
        """Return the bill of materials of a model."""
        return self._read_document(f"models/{quote(model_id, safe='')}/bom", store)

    def _read_document(self, route: str, store: ObjectStore) -> bytes:
        """Return a document, which a large response links to."""
        response = self._request("GET", route)
        if response.status_code == HTTPStatus.OK:
            return response.content
        location = response.headers.get("Location")
        if response.status_code != HTTPStatus.FOUND or not location:
            raise create_unexpected_response_error(response, "without a document")
        for attempt in iterate_attempts(self._report):
            with attempt:
                content = store.read(location)
        return content

    def read_policy(self) -> Json:
        """Return the policy of the stack. Each member is None if it has none."""
        return self._read_json(self._request("GET", "policy"))

    def test_policy(self, body: Json) -> Json:
        """Return what a policy would decide about an import."""
        return self._read_json(self._post("policy/tests", json=body))

    def check_policy(self, document: str) -> Json:
        """Return the summary of a valid document."""
        return self._read_json(self._post("policy/checks", json={"document": document}))

    def create_follow(self, body: Json) -> Json:
        """Follow a revision. Returns the follow."""
        return self._read_json(self._post("follows", json=body))

    def list_follows(self) -> Json:
        """Return `follows`, the records of all follows."""
        return self._read_json(self._request("GET", "follows"))

    def show_follow(self, follow_id: str) -> Json:
        return self._read_json(self._request("GET", f"follows/{quote(follow_id, safe='')}"))

    def change_follow(self, follow_id: str, body: Json) -> Json:
        return self._read_json(self._request("PATCH", f"follows/{quote(follow_id, safe='')}", json=body))

    def delete_follow(self, follow_id: str) -> None:
        self._delete(f"follows/{quote(follow_id, safe='')}")

    def create_key(self, body: Json) -> Json:
        """Create a read key. Not retried: after a lost response, a retry would create a second key."""
        return self._read_json(self._send("POST", "keys", json=body))

    def list_keys(self) -> Json:
        """Return `keys` (the records of the read keys) and `hub_url` (the URL of the Hub read API)."""
        return self._read_json(self._request("GET", "keys"))

    def delete_key(self, key_id: str) -> None:
        self._delete(f"keys/{quote(key_id, safe='')}")

    def list_audit(self, limit: int, **filters: str | None) -> tuple[list[Json], bool]:
        return self._list("audit", "entries", limit, filters)

    def read_audit_retention(self) -> int:
        """Return the days for which new entries are kept, 0 if actions are not recorded."""
        page = self._read_json(self._request("GET", "audit", params={"limit": "1"}))
        return int(page["retention_days"])

    def _list(self, route: str, key: str, limit: int, filters: dict[str, str | None]) -> tuple[list[Json], bool]:
        """Return up to `limit` entries from as many pages as needed, and whether there are more."""
        entries: list[Json] = []
        cursor: str | None = None
        while len(entries) < limit:
            page_size = min(limit - len(entries), MAX_PAGE_SIZE)
            query = {**filters, "limit": str(page_size), "cursor": cursor}
            page = self._read_json(self._request("GET", route, params={k: v for k, v in query.items() if v}))
            entries += page[key]
            cursor = page.get("cursor")
            if not cursor:
                break
        return entries, cursor is not None

    def _post(self, route: str, *, content_type: str = "application/json", **content: Any) -> requests.Response:
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": content_type}
        return self._request("POST", route, headers=headers, **content)

    def _delete(self, route: str) -> requests.Response | None:
        """Delete a resource. Returns None if an earlier attempt deleted it, and its response was lost."""
        for attempt in iterate_attempts(self._report):
            with attempt:
                try:
                    response = self._send("DELETE", route, attempt.retry_state.attempt_number)
                except NotFoundError:
                    if attempt.retry_state.attempt_number == 1:
                        raise
                    return None
        return response

    def _request(self, method: str, route: str, *, patient: bool = False, **content: Any) -> requests.Response:
        for attempt in iterate_attempts(self._report, patient=patient):
            with attempt:
                response = self._send(method, route, attempt.retry_state.attempt_number, **content)
        return response

    def _send(self, method: str, route: str, attempt_number: int = 1, **content: Any) -> requests.Response:
        """Send one request. Redirects are not followed, so that the API key is sent only to the API."""
        if params := content.pop("params", None):
            # requests would encode a space as a plus, which Signature Version 4 does not.
            route = f"{route}?{urlencode(params, quote_via=quote)}"
        timeout = FIRST_TIMEOUT if attempt_number == 1 else TIMEOUT
        with translate_network_errors(f"the API at {self._url}"):
            response = self._session.request(
                method, f"{self._url}/{route}", timeout=timeout, allow_redirects=False, **content
            )
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise create_error(response)
        return response

    def _read_json(self, response: requests.Response) -> Json:
        if response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise create_unexpected_response_error(response, "instead of a JSON object")
        try:
            body = response.json()
        except ValueError:
            raise create_unexpected_response_error(response, "with a body that is not JSON") from None
        if not isinstance(body, dict):
            raise create_unexpected_response_error(response, "with a body that is not a JSON object")
        return body

    def _read_task_id(self, response: requests.Response, location: str | None) -> str:
        if not location:
            raise create_unexpected_response_error(response, "without the URL of a task")
        return location.rpartition("/")[2]
