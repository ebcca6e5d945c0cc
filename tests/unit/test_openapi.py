"""The API's document says what the handlers are, and the page shows it."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis import openapi as schemathesis_openapi

from openapi.document import DOCUMENT, build_document, render_document
from tests.lambda_functions import call_api, read_event
from tests.template.rules import list_routes
from tests.template.transformed import read_template, transform_template

METHODS = {"get", "post", "put", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document()


def list_operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def test_the_document_is_that_of_the_code() -> None:
    assert DOCUMENT.read_text() == render_document(), "run `make openapi`"


def test_it_names_the_routes_of_the_template(document: dict[str, Any]) -> None:
    routes = list_routes(transform_template(read_template()))
    deployed = {f"{method} {path.replace('+}', '}')}" for method, path in routes}
    assert set(list_operations(document)) == deployed - {"GET /docs"}


def test_it_is_openapi(document: dict[str, Any]) -> None:
    schemathesis_openapi.from_dict(document).validate()


def test_every_route_is_told_with_an_example(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        assert operation["summary"], route
        assert operation["tags"], route
        if route == "GET /openapi.json":
            continue
        successes = [answer for status, answer in operation["responses"].items() if status[0] in "23"]
        assert successes, route
        for content in (content for answer in successes for content in answer.get("content", {}).values()):
            assert "example" in content, f"{route} answers without an example"
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if content["schema"].get("type") != "object" or "file" not in content["schema"]["properties"]:
                assert "example" in content, f"{route} takes a body without an example"


def test_examples_are_what_the_schemas_say(document: dict[str, Any]) -> None:
    checked = 0
    for operation in list_operations(document).values():
        bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
        for content in (content for body in bodies for content in body.get("content", {}).values()):
            if "example" not in content:
                continue
            schema = {**content["schema"], "components": document["components"]}
            Draft202012Validator(schema).validate(content["example"])
            checked += 1
    assert checked > 10


def test_what_passes_says_when_to_come_again(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        for status in ("429", "503"):
            assert "Retry-After" in operation["responses"][status]["headers"], route


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found <= set(document["components"]["schemas"])


def test_the_function_gives_it_out() -> None:
    answer = call_api("read_docs", read_event("read_openapi"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == json.loads(DOCUMENT.read_text())


def test_the_page_is_whole_and_asks_nobody_else() -> None:
    answer = call_api("read_docs", read_event("read_docs"))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert len(answer.text) < 6_000_000, "Lambda's limit"
    assert not re.search(r"<(script|link|img)[^>]*\s(src|href)=['\"]?(https?:)?//", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
