"""What the API's document says of a route's answers, declared beside the route. `openapi/` makes the document of it."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse, OpenAPIResponseHeader

from modelhaul.domain import errors
from modelhaul.entrypoints.problems import find_status, find_title

IMPORTING = (
    "The import goes on in the background; follow its task. Send the header `Idempotency-Key`, with a value of your "
    "own, to be able to repeat a request safely."
)
_IMPORT_PROBLEMS = (
    errors.ModelNotFoundError,
    errors.RevisionNotFoundError,
    errors.AccessRequiredError,
    errors.ModelDisabledError,
    errors.ModelExistsError,
    errors.ImportInProgressError,
    errors.DeletionInProgressError,
    errors.CredentialsRefusedError,
    errors.UntrustedHostError,
    errors.UnexpectedResponseError,
    errors.RateLimitedError,
    errors.SourceUnavailableError,
)
_HEADERS = {
    "Location": "Path of what was created, or the address to go to.",
    "Link": 'The task that does the work: `</v1/upload/tasks/{task_id}>; rel="status"`.',
    "Retry-After": "Seconds to wait before the next try.",
}


def describe_responses(
    status: HTTPStatus,
    description: str,
    *,
    body: str | None = None,
    headers: Iterable[str] = (),
    problems: Iterable[type[errors.ModelhaulError]] = (),
    takes_json: bool = False,
) -> dict[int, OpenAPIResponse]:
    """The success, whose body is a schema of `openapi/answers.py` by name, and an RFC 9457 problem for each error.

    `takes_json`: the body is JSON, which may be invalid. Every route refuses unknown query parameters.
    """
    success = OpenAPIResponse(description=description)
    if body is not None:
        success["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    success["headers"] = describe_headers(headers)
    words: dict[int, dict[str, str]] = {
        HTTPStatus.UNPROCESSABLE_ENTITY: {"invalid-fields": "Fields or query parameters are missing, unknown or wrong"}
    }
    if takes_json:
        words[HTTPStatus.BAD_REQUEST] = {"invalid-json": "The body is not a JSON object"}
    for kind in problems:
        words.setdefault(find_status(kind), {})[kind.type] = find_title(kind)
    return {status.value: success, **{int(code): describe_problem(texts) for code, texts in words.items()}}


def describe_import(invalid: type[errors.InvalidReferenceError]) -> dict[int, OpenAPIResponse]:
    """The answers of the routes that import a model by its name; `invalid` is for a name that cannot be."""
    return describe_responses(
        HTTPStatus.CREATED,
        "Accepted; no body.",
        headers=["Location"],
        problems=[*_IMPORT_PROBLEMS, invalid],
        takes_json=True,
    )


def describe_problem(words: Mapping[str, str]) -> OpenAPIResponse:
    """An answer that is a problem of one of these types; `openapi/` has an example of each."""
    return OpenAPIResponse(
        description="; ".join(f"`{kind}`: {text}" for kind, text in words.items()) + ".",
        content={
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind: {"$ref": f"#/components/examples/{kind}"} for kind in words},
            }
        },
    )


def describe_headers(names: Iterable[str]) -> dict[str, OpenAPIResponseHeader]:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names}
