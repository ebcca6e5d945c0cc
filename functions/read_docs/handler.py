"""GET /v1/openapi.json and /v1/docs"""

from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

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


@app.get("/docs", include_in_schema=False)
def read_page(format: Annotated[str, Query()] = "html") -> Response[str]:  # noqa: A002 - the page links to ?format=json
    if format == "json":
        return read_openapi()
    # Imported here, because the route of the JSON document does not need the page.
    from modelhaul.entrypoints.docs_page import render_page  # noqa: PLC0415

    settings = PageSettings.read()
    page, policy = render_page(read_document(), settings.aws_endpoint_url or settings.download_origins)
    return Response(HTTPStatus.OK.value, "text/html; charset=utf-8", page, {"Content-Security-Policy": policy})
