"""GET /v1/openapi.json, /v1/docs and /v1/docs/{asset}"""

from functools import cache
from http import HTTPStatus
from pathlib import Path

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.settings import PageSettings

app = create_app()
handler = create_handler(app)


@cache
def read_document() -> str:
    """Read the document that `make pages` generates from the handlers."""
    return (Path(__file__).parent / "openapi.json").read_text()


@app.get(
    "/openapi.json",
    summary="Get the OpenAPI document",
    tags=["Documentation"],
    openapi_extensions={"security": []},
    responses=describe_responses(HTTPStatus.OK, "The OpenAPI 3.1 document.", body="Document"),
)
def read_openapi() -> Response[str]:
    return Response(HTTPStatus.OK.value, "application/json", read_document())


# Imported by the functions, because the route of the JSON document does not need the page.
@app.get("/docs", include_in_schema=False)
def read_page() -> Response[str]:
    from modelhaul.entrypoints.docs_page import render_page  # noqa: PLC0415

    settings = PageSettings.read()
    page, policy = render_page(settings.aws_endpoint_url or settings.download_origins)
    headers: dict[str, str | list[str]] = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(HTTPStatus.OK.value, "text/html; charset=utf-8", page, headers)


@app.get("/docs/<asset>", include_in_schema=False)
def read_asset(asset: str) -> Response[str]:
    from modelhaul.entrypoints.docs_page import find_asset  # noqa: PLC0415

    content = find_asset(asset)
    if content is None:
        raise NotFoundError
    headers: dict[str, str | list[str]] = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(HTTPStatus.OK.value, "text/plain; charset=us-ascii", content, headers)
