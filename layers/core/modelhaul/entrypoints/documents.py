"""Descriptions of a route's responses, declared next to the route. `openapi/` generates the document from them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse, OpenAPIResponseHeader

from modelhaul.domain import errors
from modelhaul.entrypoints.problems import find_status, find_title

IMPORTING = (
    "The import runs in the background. Follow its task for the progress and the result. To retry the request safely, "
    "send the header `Idempotency-Key` with a unique value."
)
RESOLVE_PROBLEMS = (
    errors.ModelNotFoundError,
    errors.RevisionNotFoundError,
    errors.AccessRequiredError,
    errors.ModelDisabledError,
    errors.CredentialsRefusedError,
    errors.UntrustedHostError,
    errors.SourceRefusedError,
    errors.UnexpectedResponseError,
    errors.RateLimitedError,
    errors.SourceUnavailableError,
)
_IMPORT_PROBLEMS = (
    *RESOLVE_PROBLEMS,
    errors.StorageQuotaError,
    errors.ModelExistsError,
    errors.ImportInProgressError,
    errors.DeletionInProgressError,
    errors.PolicyDeniedError,
    errors.PolicyUnavailableError,
)
_HEADERS = {
    "Location": "Path of the created task, model or follow.",
    "Link": 'The task that runs the import: `</v1/upload/tasks/{task_id}>; rel="status"`.',
    "Retry-After": "Seconds to wait before the next request.",
}
_REDIRECT_HEADERS = {"Location": "Presigned URL of the file."}


def describe_responses(
    status: HTTPStatus,
    description: str,
    *,
    body: str | None = None,
    media_type: str = "application/json",
    headers: Iterable[str] = (),
    problems: Iterable[type[errors.ModelhaulError]] = (),
    has_json_body: bool = False,
) -> dict[int, OpenAPIResponse]:
    """Describe the successful response, and an RFC 9457 problem for each error in `problems`.

    `body` is the name of a schema in `openapi/responses.py`, `media_type` its media type. `has_json_body`: the request
    has a JSON body, which may be invalid. Every route rejects unknown query parameters.
    """
    success = OpenAPIResponse(description=description)
    if body is not None:
        success["content"] = {media_type: {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    success["headers"] = describe_headers(headers, status)
    titles: dict[int, dict[str, str]] = {
        HTTPStatus.UNPROCESSABLE_ENTITY: {"invalid-fields": "Missing, unknown or invalid fields or query parameters"}
    }
    if has_json_body:
        titles[HTTPStatus.BAD_REQUEST] = {"invalid-json": "The body is not a JSON object"}
    for kind in problems:
        titles.setdefault(find_status(kind), {})[kind.type] = find_title(kind)
        if kind is errors.InvalidFormError:
            titles[HTTPStatus.UNPROCESSABLE_ENTITY]["invalid-form-field"] = "The form has no field `file`"
    return {status.value: success, **{int(code): describe_problem(texts) for code, texts in titles.items()}}


def describe_import(invalid: type[errors.InvalidReferenceError]) -> dict[int, OpenAPIResponse]:
    """Describe the responses of a route that imports a model by name. `invalid` is the error for an invalid name."""
    return describe_responses(
        HTTPStatus.CREATED,
        "The import was accepted. The response has no body.",
        headers=["Location"],
        problems=[*_IMPORT_PROBLEMS, invalid],
        has_json_body=True,
    )


def describe_problem(titles: Mapping[str, str]) -> OpenAPIResponse:
    """Describe a response that is a problem of one of these types. `openapi/examples.py` has an example of each.

    The example `invalid-form-field` is of the type `invalid-form`, which has two statuses.
    """
    return OpenAPIResponse(
        description="; ".join(f"`{kind.removesuffix('-field')}`: {text}" for kind, text in titles.items()) + ".",
        content={
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind: {"$ref": f"#/components/examples/{kind}"} for kind in titles},
            }
        },
    )


def describe_headers(names: Iterable[str], status: HTTPStatus = HTTPStatus.CREATED) -> dict[str, OpenAPIResponseHeader]:
    """Describe the headers of a response with this status, by name."""
    texts = _HEADERS | (_REDIRECT_HEADERS if status is HTTPStatus.FOUND else {})
    return {name: {"description": texts[name], "schema": {"type": "string"}} for name in names}
