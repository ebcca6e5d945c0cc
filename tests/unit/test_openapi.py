"""The API's document says what the handlers are, and the page shows it."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis import openapi as schemathesis_openapi

from openapi.document import DOCUMENT, build_document
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


def test_it_names_the_routes_of_the_template(document: dict[str, Any]) -> None:
    routes = list_routes(transform_template(read_template()))
    deployed = {f"{method} {path.replace('+}', '}')}" for method, path in routes}
    assert set(list_operations(document)) == deployed - {"GET /docs"}


@pytest.mark.slow
def test_it_is_openapi(document: dict[str, Any]) -> None:
    schemathesis_openapi.from_dict(document).validate()


def list_contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where, of which type and with what: each body that the operation takes or is answered with."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "takes", kind, content
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items():
            yield status, kind, content


def list_examples(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    examples = [content["example"]] if "example" in content else []
    for example in content.get("examples", {}).values():
        found = example
        if "$ref" in example:
            found = document["components"]["examples"][example["$ref"].removeprefix("#/components/examples/")]
        examples.append(found["value"])
    return examples


def find_missing_examples(document: dict[str, Any]) -> list[str]:
    """But for a form, whose archive no document can hold."""
    missing = []
    for route, operation in list_operations(document).items():
        missing += [
            f"{route}: {parameter['name']}"
            for parameter in operation["parameters"]
            if parameter["in"] == "path" and "example" not in parameter
        ]
        for status, answer in operation["responses"].items():
            headers = answer.get("headers", {}).items()
            missing += [f"{route}: {status} {name}" for name, header in headers if "example" not in header]
        for where, kind, content in list_contents(operation):
            if kind != "multipart/form-data" and not list_examples(document, content):
                missing.append(f"{route}: {where} {kind}")
    return missing


def test_every_route_is_told_with_examples(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        assert operation["summary"], route
        assert operation["tags"], route
        assert any(status[0] in "23" for status in operation["responses"]), route
        assert all(f"{{{name}}}" in route for name in list_path_parameters(operation)), route
        assert len(list_path_parameters(operation)) == route.count("{"), route
    assert find_missing_examples(document) == []


def list_path_parameters(operation: dict[str, Any]) -> list[str]:
    return [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]


def test_a_missing_example_is_found(document: dict[str, Any]) -> None:
    broken = copy.deepcopy(document)
    paths = broken["paths"]
    del paths["/models/{model_id}/files/{path}"]["get"]["parameters"][1]["example"]
    del paths["/models/{model_id}/files/{path}"]["get"]["responses"]["302"]["headers"]["Location"]["example"]
    del paths["/models/{model_id}"]["delete"]["responses"]["404"]["content"]["application/problem+json"]["examples"]
    del paths["/openapi.json"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    del paths["/upload/local"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert sorted(find_missing_examples(broken)) == [
        "DELETE /models/{model_id}: 404 application/problem+json",
        "GET /models/{model_id}/files/{path}: 302 Location",
        "GET /models/{model_id}/files/{path}: path",
        "GET /openapi.json: 200 application/json",
        "POST /upload/local: takes application/json",
    ]


def test_examples_are_what_the_schemas_say(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        for where, kind, content in list_contents(operation):
            schema = {**content["schema"], "components": document["components"]}
            for example in list_examples(document, content):
                Draft202012Validator(schema).validate(example)
                if kind == "application/problem+json":
                    assert str(example["status"]) == where, f"{route}: {example['type']}"
                    assert example["remedy"], f"{route}: {example['type']}"


def test_each_problem_is_told_and_shown(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/problem+json")
            if content is None:
                continue
            told = re.findall(r"`([a-z-]+)`: ", answer["description"])
            assert told, f"{route}: {status}"
            shown = [example["type"] for example in list_examples(document, content)]
            assert sorted(shown) == sorted(f"urn:modelhaul:problem:{kind}" for kind in told), f"{route}: {status}"


def test_what_passes_says_when_to_come_again(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        assert "Retry-After" in operation["responses"]["429"]["headers"], route
        assert "Retry-After" in operation["responses"]["503"]["headers"], route
    submits = [operation for route, operation in list_operations(document).items() if route.startswith("POST")]
    assert len(submits) == 3
    assert all("Retry-After" in operation["responses"]["409"]["headers"] for operation in submits)
    assert "headers" not in document["paths"]["/upload/tasks/{task_id}"]["delete"]["responses"]["409"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for kind in ("schemas", "examples"):
        found = set(re.findall(rf'"#/components/{kind}/([^"]+)"', json.dumps(document)))
        assert found == document["components"][kind].keys()


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
