"""Who may read from the Hub read API of the deployed stack: nobody without a read key of this stack."""

from datetime import UTC, datetime, timedelta

import pytest
import requests

from modelhaul.domain.read_keys import Scope, create_key
from tests.stack.conftest import Stack
from tests.template.transformed import read_template, transform_template
from tests.upstream.repositories import MINILM

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROUTES = [
    f"/api/models/{MINILM}",
    f"/api/models/{MINILM}/revision/main",
    f"/api/models/{MINILM}/tree/main",
    f"/api/models/{MINILM}/tree/main/1_Pooling?recursive=true&expand=true",
    f"/api/models/{MINILM}/paths-info/main",
    f"/api/models/{MINILM}/refs",
    "/api/models?search=mini",
    "/api/whoami-v2",
    f"/{MINILM}/resolve/main/config.json",
    f"/{MINILM}/raw/main/config.json",
    "/api/telemetry/hf",
    "/absent",
]
METHODS = ["GET", "HEAD", "POST"]


def ask(stack: Stack, route: str, authorization: str | None, method: str = "GET") -> requests.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = stack.state.hub_url + route
    return requests.request(method, url, headers=headers, timeout=30, allow_redirects=False)


def create_foreign_key() -> str:
    """Return a key as another stack creates it."""
    key, _ = create_key("another stack", (Scope.READ, Scope.IMPORT), None, datetime.now(UTC))
    return key


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_responds_without_a_key(stack: Stack, read_key: str, route: str) -> None:
    refused = [
        None,
        "",
        "Bearer",
        f"Bearer {create_foreign_key()}",
        f"Bearer {read_key[:-1]}",
        f"Bearer {read_key}x",
        f"Bearer {read_key} {read_key}",
        f"Basic {read_key}",
        read_key,
        f"Bearer {stack.state.api_key}",
    ]
    for method in METHODS:
        for authorization in refused:
            response = ask(stack, route, authorization, method)
            assert response.status_code == 401, (method, authorization)
            if method != "HEAD":
                assert response.json().keys() == {"error"}
    separator = "&" if "?" in route else "?"
    assert ask(stack, f"{route}{separator}token={read_key}&Authorization=Bearer%20{read_key}", None).status_code == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(stack: Stack, read_key: str, method: str) -> None:
    response = ask(stack, f"/api/models/{MINILM}", f"Bearer {read_key}", method)
    assert response.status_code in {401, 403, 404, 405}


def test_the_import_api_refuses_a_read_key(stack: Stack, read_key: str) -> None:
    for headers in ({"Authorization": f"Bearer {read_key}"}, {"x-api-key": read_key}):
        response = requests.get(f"{stack.state.api_url}/models", headers=headers, timeout=30)
        assert response.status_code == 403


def test_a_refused_request_says_why(stack: Stack) -> None:
    response = ask(stack, "/api/whoami-v2", f"Bearer {create_foreign_key()}")
    assert response.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert "X-Error-Code" not in response.headers


def test_a_removed_key_is_refused_at_once_where_it_is_not_cached(stack: Stack) -> None:
    created = stack.create_key("removed")
    assert stack.http.delete(f"{stack.state.api_url}/keys/{created['key_id']}", timeout=30).status_code == 204
    assert ask(stack, "/api/whoami-v2", f"Bearer {created['key']}").status_code == 401


def test_the_authorizer_caches_for_a_minute() -> None:
    """So a removed key is accepted for at most 60 s."""
    resources = transform_template(read_template())["Resources"]
    definition = resources["HubApi"]["Properties"]["Body"]
    schemes = definition.get("components", {}).get("securitySchemes") or definition["securityDefinitions"]
    (authorizer,) = (scheme["x-amazon-apigateway-authorizer"] for scheme in schemes.values())
    assert authorizer["authorizerResultTtlInSeconds"] == 60


def test_an_expired_key_is_refused(stack: Stack) -> None:
    expiry = datetime.now(UTC) + timedelta(seconds=2)
    created = stack.create_key("expiring", expires_at=expiry.strftime("%Y-%m-%dT%H:%M:%SZ"))
    stack.wait_until(lambda: datetime.now(UTC) > expiry)
    assert ask(stack, "/api/whoami-v2", f"Bearer {created['key']}").status_code == 401


def test_a_key_and_its_use_are_listed(stack: Stack, read_key: str) -> None:
    assert ask(stack, "/api/whoami-v2", f"Bearer {read_key}").status_code == 200
    body = stack.http.get(f"{stack.state.api_url}/keys", timeout=30).json()
    (entry,) = (key for key in body["keys"] if key["name"] == "clients")
    assert entry["last_used_on"] == datetime.now(UTC).date().isoformat()
    assert read_key not in str(body)
