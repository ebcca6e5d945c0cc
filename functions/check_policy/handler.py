"""GET /v1/policy, POST /v1/policy/tests, POST /v1/policy/checks"""

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from modelhaul import wiring
from modelhaul.domain import errors
from modelhaul.domain.models import Source
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.documents import describe_responses
from modelhaul.entrypoints.policies import PolicyCheck, PolicyTest, check_document, present_policy, present_trial
from modelhaul.entrypoints.responses import create_json_response

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_policy_tester)


@app.get(
    "/policy",
    summary="Get the policy",
    description="The document of rules for imports and for retention, as it is now. Functions use a change after at "
    "most a minute. Every member is null if the stack has no policy (parameter PolicyLocation): every import is then "
    "allowed.",
    tags=["Policy"],
    responses=describe_responses(HTTPStatus.OK, "The policy.", body="Policy", problems=[errors.PolicyUnavailableError]),
)
def get_policy() -> Response[str]:
    reader = wiring.create_policy_reader()
    return create_json_response(present_policy(None if reader is None else reader.read_current()))


@app.post(
    "/policy/tests",
    summary="Test the policy with a model",
    description="Resolves the model, lists its files, and returns what the policy would decide about its import, as "
    "far as that is known before a transfer. Nothing is imported or recorded. `document` tests another document "
    "instead, before it becomes the policy.",
    tags=["Policy"],
    responses=describe_responses(
        HTTPStatus.OK,
        "The decision, and what it depends on.",
        body="PolicyTrial",
        problems=[
            errors.InvalidPolicyError,
            errors.PolicyUnavailableError,
            errors.InvalidReferenceError,
            errors.InvalidRepositoryError,
            errors.ModelNotFoundError,
            errors.RevisionNotFoundError,
            errors.AccessRequiredError,
            errors.ModelDisabledError,
            errors.EmptyModelError,
            errors.RequiredFilesError,
            errors.ListingTooLongError,
            errors.FileMissingError,
            errors.FileTooLargeError,
            errors.CredentialsRefusedError,
            errors.UntrustedHostError,
            errors.SourceRefusedError,
            errors.SourceQuotaError,
            errors.UnexpectedResponseError,
            errors.RateLimitedError,
            errors.SourceUnavailableError,
        ],
        has_json_body=True,
    ),
)
def test_policy(request: Annotated[PolicyTest, Body()]) -> Response[str]:
    trial = wiring.create_policy_tester().test(
        Source(request.source), request.name, request.revision, request.selection, request.content
    )
    return create_json_response(present_trial(trial))


@app.post(
    "/policy/checks",
    summary="Check a policy document",
    description="Checks a document without storing it. `POST /policy/tests` shows what it would decide.",
    tags=["Policy"],
    responses=describe_responses(
        HTTPStatus.OK,
        "The document is valid.",
        body="PolicySummary",
        problems=[errors.InvalidPolicyError],
        has_json_body=True,
    ),
)
def check_policy(request: Annotated[PolicyCheck, Body()]) -> Response[str]:
    return create_json_response(check_document(request.document))
