"""Events of the Hub read API, as API Gateway and MiniStack send them."""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.lambda_functions import Context, load_handler

API_ID = "f6g7h8i9j0"
KEY = {"key_id": "0123456789abcdef", "name": "Schlüssel für Zoë, 100 %", "scopes": "read", "names": "*"}
BASE_URLS = {
    "aws": f"https://{API_ID}.execute-api.eu-central-1.amazonaws.com/hf",
    "ministack": "http://127.0.0.1:4566/hf",
    "domain": "https://models.example/team/hub",
}
GATEWAYS = tuple(BASE_URLS)
"""API Gateway; MiniStack; API Gateway with a custom domain, which has a base path."""


def build_event(
    gateway: str, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> dict[str, Any]:
    """`target`: path below the prefix and query, percent-encoded as a client sends them."""
    path, _, sent_query = target.partition("#")[0].partition("?")
    query = parse_qs(sent_query, keep_blank_values=True)
    base = urlsplit(BASE_URLS[gateway])
    is_local = gateway == "ministack"
    if is_local:
        path = "/".join(filter(None, unquote(path).split("/")))
    stage = "/hf" if is_local else base.path
    context = {
        "apiId": API_ID,
        "stage": "hf",
        "path": f"{stage}/{path}",
        "resourcePath": "/{proxy+}",
        "httpMethod": method,
        "authorizer": {"principalId": KEY["key_id"], **KEY, "name": quote(KEY["name"])},
    }
    sent = {"Host": base.netloc, "Accept": "*/*", **(headers or {})}
    return {
        **({"version": "1.0"} if is_local else {}),
        "resource": "/{proxy+}",
        "path": f"/{path}",
        "httpMethod": method,
        "headers": {name.lower(): value for name, value in sent.items()} if is_local else sent,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": path} if path else None,
        "requestContext": context if is_local else {**context, "domainName": base.netloc},
        "body": base64.b64encode(body).decode() if body else None,
        "isBase64Encoded": bool(body),
    }


@dataclass(frozen=True)
class HubResponse:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class HubClient:
    """Calls the function read_hub with the events of `gateway`."""

    gateway: str

    @property
    def base_url(self) -> str:
        return BASE_URLS[self.gateway]

    @property
    def prefix(self) -> str:
        return urlsplit(self.base_url).path

    def call(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> HubResponse:
        event = build_event(self.gateway, method, target, headers=headers, body=body)
        with patch.dict(os.environ, LOCAL_MODE=str(self.gateway == "ministack").lower()):
            returned = load_handler("read_hub")(event, Context())
        text = returned["body"]
        is_json = returned["headers"].get("Content-Type", "").startswith("application/json")
        assert returned["isBase64Encoded"] is (bool(text) and not is_json)
        content = base64.b64decode(text) if returned["isBase64Encoded"] else text.encode()
        return HubResponse(
            returned["statusCode"], {name.lower(): value for name, value in returned["headers"].items()}, content
        )

    def get(self, target: str, **headers: str) -> HubResponse:
        return self.call("GET", target, headers=headers)

    def head(self, target: str, **headers: str) -> HubResponse:
        response = self.call("HEAD", target, headers=headers)
        assert response.content == b""
        return response
