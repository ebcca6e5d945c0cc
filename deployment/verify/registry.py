"""The list of checks, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from deployment.verify.api import Api, ApiKey, SignedRequest, open_http_session
from deployment.verify.aws import Clients, DeployedStack
from deployment.verify.imports import Imports
from deployment.verify.results import CheckSkippedError
from deployment.verify.target import Target

DOCUMENTATION = "docs/verification.md"


@dataclass
class Verification:
    """What checks use. `marker` is a part of the name of all that they create. `creates_rules` allows the check of
    events, which creates a rule and a queue.
    """

    target: Target
    started_at: datetime
    marker: str
    creates_rules: bool = False
    clients: Clients = field(init=False)
    stack: DeployedStack = field(init=False)

    def __post_init__(self) -> None:
        self.clients = Clients(self.target)
        self.stack = DeployedStack(self.clients)

    @property
    def uses_iam(self) -> bool:
        return self.stack.parameters.get("AuthMode") == "IAM"

    @cached_property
    def signer(self) -> SignedRequest:
        return SignedRequest(self.target.session)

    @cached_property
    def api(self) -> Api:
        session = open_http_session(uses_proxies=not self.target.is_local)
        url = self.target.api_url or self.stack.outputs["ApiUrl"]
        if self.uses_iam:
            return Api(url, session, self.signer)
        found = self.clients.apigateway.get_api_key(apiKey=self.stack.outputs["ApiKeyId"], includeValue=True)
        return Api(url, session, ApiKey(found["value"]))

    @property
    def hub_url(self) -> str:
        """The URL of the Hub read API. Raises CheckSkippedError if the stack does not have it."""
        if "HubUrl" not in self.stack.outputs:
            raise CheckSkippedError("HubAccess is OFF")
        return self.target.hub_url or self.stack.outputs["HubUrl"]

    @cached_property
    def imports(self) -> Imports:
        return Imports(self.api, self.clients, self.stack, self.marker)


@dataclass(frozen=True, slots=True)
class Check:
    """`run` returns what was seen. `not_on_local` is the reason to skip it on the local stack, or ""."""

    name: str
    section: str
    run: Callable[[Verification], str]
    not_on_local: str = ""

    @property
    def link(self) -> str:
        return f"{DOCUMENTATION}#{self.section}"


CHECKS: dict[str, Check] = {}


def check(
    name: str, section: str, *, not_on_local: str = ""
) -> Callable[[Callable[[Verification], str]], Callable[[Verification], str]]:
    """Register a check. `section` is the anchor of its description."""

    def register(run: Callable[[Verification], str]) -> Callable[[Verification], str]:
        CHECKS[name] = Check(name, section, run, not_on_local)
        return run

    return register
