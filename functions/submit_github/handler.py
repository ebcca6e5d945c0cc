"""POST /v1/upload/github"""

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import Field

from modelhaul import wiring
from modelhaul.domain.errors import InvalidRepositoryError
from modelhaul.domain.models import Source
from modelhaul.entrypoints.api import create_app, create_handler
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.documents import IMPORTING, describe_import
from modelhaul.entrypoints.responses import accept_task
from modelhaul.entrypoints.submissions import HubImport

app = create_app()
handler = create_handler(app)
wiring.build_early(wiring.create_submitter, wiring.open_github_resolver)


class GitHubImport(HubImport):
    owner: str = Field(max_length=1000, examples=["openai-community"])
    repo_name: str = Field(max_length=1000, examples=["gpt2"])
    revision: str = Field(default="main", max_length=1000)


@app.post(
    "/upload/github",
    summary="Import a model from a GitHub repository",
    description=IMPORTING,
    tags=["Uploads"],
    responses=describe_import(InvalidRepositoryError),
)
def submit_github(request: Annotated[GitHubImport, Body()]) -> Response[str]:
    # A slash in `owner` would change where the joined name splits into owner and repository.
    if "/" in request.owner:
        raise InvalidRepositoryError(
            f"The owner {request.owner[:100]!r} contains a slash. For github.com/OWNER/REPOSITORY, send OWNER as owner "
            "and REPOSITORY as repo_name.",
            part="owner",
        )
    name = f"{request.owner}/{request.repo_name}"
    task = wiring.create_submitter().submit(
        Source.GITHUB,
        name,
        request.revision,
        request.selection,
        submitted_by=read_caller(app.current_event.raw_event),
    )
    return accept_task(task)
