"""The API's routes."""

import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests
import urllib3

from modelhaul_cli.configuration import Configuration
from modelhaul_cli.errors import ConflictError, NotFoundError, UnavailableError
from modelhaul_cli.http_session import TIMEOUT, open_session, translate_network_errors
from modelhaul_cli.problems import create_error
from modelhaul_cli.retrying import open_attempts

type Json = dict[str, Any]

MAX_PAGE_SIZE = 100


class ApiClient:
    """Every call is tried again while it does not get through; POSTs have an Idempotency-Key, so that one whose answer
    was lost does not start twice.

    All methods raise CommandError. Thread-safe. `say` is told of each wait.
    """

    def __init__(self, configuration: Configuration, say: Callable[[str], None]) -> None:
        self._url = configuration.url
        self._say = say
        self._session = open_session(configuration.url)
        self._session.headers["x-api-key"] = configuration.key

    def submit(self, source: str, body: Json) -> str:
        """`source` is the route's last part. The task's id."""
        answer = self._post(f"upload/{source}", json=body)
        return self._read_task_id(answer.headers.get("Location"))

    def submit_archive(self, file_name: str, content: bytes, model_name: str | None) -> str:
        """A ZIP that fits into a POST. The task's id."""
        # Once for all attempts: with another boundary it would be another body for the same Idempotency-Key.
        form, content_type = urllib3.encode_multipart_formdata({"file": (file_name, content, "application/zip")})
        params = {"model_name": model_name} if model_name else None
        answer = self._post("upload/local", params=params, data=form, content_type=content_type)
        return self._read_task_id(answer.links.get("status", {}).get("url"))

    def open_upload(self, file_name: str, size: int, model_name: str | None) -> Json:
        """`task_id`, `expires_at` and `upload`: where the bytes of a larger ZIP are to be sent."""
        body: Json = {"file_name": file_name, "size": size}
        if model_name:
            body["model_name"] = model_name
        return self._read_json(self._post("upload/local", json=body))

    def read_task(self, task_id: str) -> Json:
        return self._read_json(self._request("GET", f"upload/tasks/{quote(task_id, safe='')}"))

    def list_tasks(self, limit: int, **filters: str | None) -> tuple[list[Json], bool]:
        return self._list("upload/tasks", "tasks", limit, filters)

    def cancel_task(self, task_id: str) -> None:
        """Also one that is cancelled already. Raises ConflictError if it has ended otherwise."""
        try:
            self._request("DELETE", f"upload/tasks/{quote(task_id, safe='')}")
        except ConflictError:
            # Perhaps it was this very request, whose first answer was lost.
            if self.read_task(task_id).get("stage") != "CANCELLED":
                raise

    def list_models(self, limit: int, **filters: str | None) -> tuple[list[Json], bool]:
        return self._list("models", "models", limit, filters)

    def read_model(self, model_id: str) -> Json:
        return self._read_json(self._request("GET", f"models/{quote(model_id, safe='')}"))

    def delete_model(self, model_id: str) -> bool:
        """False if the rest of it is still being deleted in the background."""
        for attempt in open_attempts(self._say):
            with attempt:
                try:
                    answer = self._send("DELETE", f"models/{quote(model_id, safe='')}")
                except NotFoundError:
                    if attempt.retry_state.attempt_number == 1:
                        raise
                    return True  # an earlier attempt did it, and its answer was lost
        return answer.status_code != HTTPStatus.ACCEPTED

    def locate_file(self, model_id: str, path: str) -> str:
        """The presigned address of a file."""
        answer = self._request("GET", f"models/{quote(model_id, safe='')}/files/{quote(path)}")
        location = answer.headers.get("Location")
        if answer.status_code != HTTPStatus.FOUND or not location:
            raise _create_surprise()
        return location

    def _list(self, route: str, what: str, limit: int, filters: dict[str, str | None]) -> tuple[list[Json], bool]:
        """Up to `limit` entries, page by page, and whether there are more."""
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            wanted = min(limit - len(found), MAX_PAGE_SIZE)
            asked = {**filters, "limit": str(wanted), "cursor": cursor}
            page = self._read_json(self._request("GET", route, params={k: v for k, v in asked.items() if v}))
            found += page[what]
            cursor = page.get("cursor")
            if not cursor:
                break
        return found, cursor is not None

    def _post(self, route: str, *, content_type: str = "application/json", **content: Any) -> requests.Response:
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": content_type}
        return self._request("POST", route, headers=headers, **content)

    def _request(self, method: str, route: str, **content: Any) -> requests.Response:
        for attempt in open_attempts(self._say):
            with attempt:
                answer = self._send(method, route, **content)
        return answer

    def _send(self, method: str, route: str, **content: Any) -> requests.Response:
        """Never follows a redirect: the key is for the API alone."""
        with translate_network_errors("The API"):
            answer = self._session.request(
                method, f"{self._url}/{route}", timeout=TIMEOUT, allow_redirects=False, **content
            )
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise create_error(answer)
        return answer

    def _read_json(self, answer: requests.Response) -> Json:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise _create_surprise()
        return body

    def _read_task_id(self, location: str | None) -> str:
        if not location:
            raise _create_surprise()
        return location.rpartition("/")[2]


def _create_surprise() -> UnavailableError:
    return UnavailableError(
        "This is not Modelhaul's API",
        "It answered with something else.",
        remedy="Look at the address: it ends with the stage, as in https://….amazonaws.com/v1.",
        transient=False,
    )
