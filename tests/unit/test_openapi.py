"""The OpenAPI document matches the handlers, and the page shows the document."""

import ast
import base64
import copy
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis import openapi as schemathesis_openapi

from openapi.document import DOCUMENT, build_document
from tests.lambda_functions import Response, call_api, read_event
from tests.template.rules import list_routes
from tests.template.transformed import ROOT, read_template, transform_template

METHODS = {"get", "post", "put", "patch", "delete"}


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


def test_document_has_the_routes_of_the_template(document: dict[str, Any]) -> None:
    routes = list_routes(transform_template(read_template()))
    deployed = {f"{method} {path.replace('+}', '}')}" for method, path in routes}
    assert set(list_operations(document)) == deployed - {"GET /docs", "GET /docs/{asset}"}


@pytest.mark.slow
def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    schemathesis_openapi.from_dict(document).validate()


def list_contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (request or status, content type, content) of each body of the operation."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "request", kind, content
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
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
    """Return the places without an example. Forms need none, because a document cannot contain an archive."""
    missing = []
    for route, operation in list_operations(document).items():
        missing += [
            f"{route}: {parameter['name']}"
            for parameter in operation["parameters"]
            if parameter["in"] == "path" and "example" not in parameter
        ]
        for status, response in operation["responses"].items():
            headers = response.get("headers", {}).items()
            missing += [f"{route}: {status} {name}" for name, header in headers if "example" not in header]
        for where, kind, content in list_contents(operation):
            if kind != "multipart/form-data" and not list_examples(document, content):
                missing.append(f"{route}: {where} {kind}")
    return missing


def test_every_route_has_descriptions_and_examples(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        assert operation["summary"], route
        assert operation["tags"], route
        assert any(status[0] in "23" for status in operation["responses"]), route
        assert all(f"{{{name}}}" in route for name in list_path_parameters(operation)), route
        assert len(list_path_parameters(operation)) == route.count("{"), route
    assert find_missing_examples(document) == []


def list_path_parameters(operation: dict[str, Any]) -> list[str]:
    return [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]


def test_missing_examples_are_found(document: dict[str, Any]) -> None:
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
        "POST /upload/local: request application/json",
    ]


def test_examples_match_their_schemas(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        for where, kind, content in list_contents(operation):
            schema = {**content["schema"], "components": document["components"]}
            for example in list_examples(document, content):
                Draft202012Validator(schema).validate(example)
                if kind == "application/problem+json":
                    assert str(example["status"]) == where, f"{route}: {example['type']}"
                    assert example["remedy"], f"{route}: {example['type']}"


def list_text_patterns() -> Iterator[re.Pattern[str]]:
    """Return the patterns of the texts in the code. A formatted value matches anything."""
    for path in [
        *(ROOT / "layers").rglob("*.py"),
        *(ROOT / "functions").rglob("*.py"),
        ROOT / "openapi" / "gateway.py",
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            values = node.values if isinstance(node, ast.JoinedStr) else [node]
            parts = [str(value.value) if isinstance(value, ast.Constant) else None for value in values]
            if sum(len(part) for part in parts if part is not None) >= 8:
                yield re.compile("".join(".*" if part is None else re.escape(part) for part in parts))


@pytest.mark.slow
def test_examples_have_texts_of_the_code(document: dict[str, Any]) -> None:
    patterns = list(list_text_patterns())
    examples = [example["value"] for example in document["components"]["examples"].values()]
    for _, operation in sorted(list_operations(document).items()):
        for _, kind, content in list_contents(operation):
            if kind == "application/problem+json":
                examples += list_examples(document, content)
    details = {example["detail"] for example in examples if not example["type"].endswith(":invalid-fields")}
    assert len(details) > 30
    assert [detail for detail in sorted(details) if not any(p.fullmatch(detail) for p in patterns)] == []


def test_each_problem_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/problem+json")
            if content is None:
                continue
            described = re.findall(r"`([a-z-]+)`: ", response["description"])
            assert described, f"{route}: {status}"
            shown = [example["type"] for example in list_examples(document, content)]
            assert sorted(shown) == sorted(f"urn:modelhaul:problem:{kind}" for kind in described), f"{route}: {status}"


def test_temporary_problems_have_retry_after(document: dict[str, Any]) -> None:
    for route, operation in list_operations(document).items():
        assert "Retry-After" in operation["responses"]["429"]["headers"], route
        assert "Retry-After" in operation["responses"]["503"]["headers"], route
    submits = [operation for route, operation in list_operations(document).items() if route.startswith("POST /upload/")]
    assert len(submits) == 4
    assert all("Retry-After" in operation["responses"]["409"]["headers"] for operation in submits)
    assert "headers" not in document["paths"]["/upload/tasks/{task_id}"]["delete"]["responses"]["409"]


def test_every_component_is_referenced_and_defined(document: dict[str, Any]) -> None:
    for kind in ("schemas", "examples"):
        found = set(re.findall(rf'"#/components/{kind}/([^"]+)"', json.dumps(document)))
        assert found == document["components"][kind].keys()


def test_function_returns_the_document() -> None:
    response = call_api("read_docs", read_event("read_openapi"))
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.body == json.loads(DOCUMENT.read_text())


def test_names_of_components_are_public(document: dict[str, Any]) -> None:
    for kind, components in document["components"].items():
        assert [name for name in components if not re.fullmatch(r"[A-Za-z][A-Za-z-]*", name)] == [], kind


def test_page_says_what_it_is_and_where_to_get_a_key(document: dict[str, Any], download_origins: str) -> None:
    page = call_api("read_docs", read_event("read_docs")).text
    assert re.findall(r"<title>(.*?)</title>", page) == ["Modelhaul API"]
    shown = document["components"]["securitySchemes"]["apiKey"]["description"]
    assert "aws apigateway get-api-key" in shown
    assert "`ApiKeyId`" in shown


@pytest.fixture
def download_origins(monkeypatch: pytest.MonkeyPatch) -> str:
    origins = "https://*.s3.eu-west-1.amazonaws.com"
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("DOWNLOAD_ORIGINS", origins)
    return origins


def test_page_is_small_and_self_contained(download_origins: str) -> None:
    response = call_api("read_docs", read_event("read_docs"))
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["cache-control"] == "no-cache"
    assert len(response.text.encode()) < 3_000, "anyone can request the page"
    assert not re.search(r"<(script|link|img)[^>]*\s(src|href)=['\"]?(https?:)?//", response.text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert policy.partition("connect-src ")[2].partition(";")[0] == f"'self' {download_origins}"


def read_asset(name: str) -> Response:
    event = read_event("read_asset")
    return call_api("read_docs", event | {"path": f"/docs/{name}", "pathParameters": {"asset": name}})


def test_assets_are_compressed_and_kept_by_browsers(download_origins: str) -> None:
    page = call_api("read_docs", read_event("read_docs"))
    names = re.findall(r'load\("([^"]+)"\)', page.text)
    assert len(names) == 2
    contents = {}
    for name in names:
        asset = read_asset(name)
        assert (asset.status, asset.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        assert len(asset.text) < 600_000, "anyone can request the asset"
        contents[name.partition("-")[0]] = content = gzip.decompress(base64.b64decode(asset.text))
        assert hashlib.sha256(content).hexdigest().startswith(name.partition("-")[2])
    assert contents.keys() == {"script", "style"}
    hashed = base64.b64encode(hashlib.sha256(contents["script"]).digest()).decode()
    assert f"'sha256-{hashed}'" in page.headers["content-security-policy"], "the browser may run the script"


@pytest.mark.parametrize("name", ["script-0123456789abcdef", "script", "..%2Fopenapi.json"])
def test_unknown_assets_are_not_found(name: str) -> None:
    response = read_asset(name)
    assert (response.status, response.headers["content-type"]) == (404, "application/problem+json")
    assert "cache-control" not in response.headers


def test_page_of_a_local_stack_connects_to_its_endpoint(download_origins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    policy = call_api("read_docs", read_event("read_docs")).headers["content-security-policy"]
    assert "connect-src 'self' http://127.0.0.1:4566;" in policy
