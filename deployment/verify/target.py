"""The stack to verify, and the models to import into it."""

import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError

from deployment.verify.results import VerificationError
from local.errors import LocalStackError
from local.stack import LocalStack, open_session

# 91 MB of weights. `main` could move, and the files could change.
HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2@c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
HUB_FILES = ("config.json", "tokenizer.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model of the Hub, or a repository of GitHub. `patterns` selects its files; () is all files."""

    name: str
    revision: str = "main"
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A deployed stack. `endpoint` is the URL of all AWS services, or None for those of AWS. `api_url` and `hub_url`
    replace the outputs of the stack, unless they are None. `poll_interval` is in seconds.
    """

    session: boto3.Session
    stack_name: str
    hub_model: SourceModel
    repository: SourceModel | None
    endpoint: str | None = None
    api_url: str | None = None
    hub_url: str | None = None
    is_local: bool = False
    poll_interval: float = 2.0


def parse_model(text: str, patterns: tuple[str, ...] = ()) -> SourceModel:
    """Parse `OWNER/NAME` or `OWNER/NAME@REVISION`. Raises VerificationError."""
    if not (match := re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text)):
        raise VerificationError(f"Invalid model {text!r}. Use OWNER/NAME or OWNER/NAME@REVISION.")
    return SourceModel(match[1], match[2] or "main", patterns)


def open_aws_target(
    stack_name: str, region: str | None, profile: str | None, hub_model: str | None, repository: str | None
) -> Target:
    """Return a stack in AWS. None selects the default of the AWS configuration, or of this module.

    Raises VerificationError.
    """
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except BotoCoreError as error:
        raise VerificationError(f"Cannot read the AWS configuration: {error}") from None
    if session.region_name is None:
        raise VerificationError("No AWS Region is set. Set REGION=, or AWS_DEFAULT_REGION.")
    return Target(
        session,
        stack_name,
        parse_model(hub_model) if hub_model else parse_model(HUB_MODEL, HUB_FILES),
        parse_model(repository) if repository else None,
    )


def open_local_target(name: str, hub_model: str | None, repository: str | None) -> Target:
    """Return a running local stack. Raises VerificationError."""
    try:
        stack = LocalStack(name)
    except LocalStackError as error:
        raise VerificationError(str(error)) from None
    if not stack.is_up() or not stack.state_path.is_file():
        raise VerificationError(f"The local stack {name!r} is not running. To start it, run `make up`.")
    state = json.loads(stack.state_path.read_text())
    default_model = parse_model(HUB_MODEL, HUB_FILES)
    if urlsplit(state["hub_endpoint"]).hostname == "127.0.0.1":
        default_model = parse_model(state["other_model"])
    repository = repository or state["other_repository"]
    return Target(
        open_session(),
        state["stack_name"],
        parse_model(hub_model) if hub_model else default_model,
        parse_model(repository) if repository else None,
        endpoint=state["aws_endpoint_url"],
        api_url=state["api_url"],
        hub_url=state["hub_url"],
        is_local=True,
        poll_interval=0.2,
    )
