"""Requests to the APIs of the stack, as clients send them."""

from dataclasses import dataclass
from typing import Any

import boto3
import requests
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from deployment.verify.results import CheckFailedError, VerificationError, expect

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between received bytes
PROBLEM_TYPE = "urn:modelhaul:problem:"
SERVICE = "execute-api"

type Json = dict[str, Any]


class SignedRequest(AuthBase):
    """Sign requests with Signature Version 4."""

    def __init__(self, session: boto3.Session) -> None:
        if (credentials := session.get_credentials()) is None:
            raise VerificationError("No AWS credentials. Set PROFILE=, or the variables of the AWS CLI.")
        self._credentials = credentials
        self._region = session.region_name

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = self._create_request(request)
        SigV4Auth(self._credentials, SERVICE, self._region).add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request

    def sign_query(self, url: str) -> str:
        """Return the URL of a GET request with a signature in its query."""
        signed = AWSRequest("GET", url)
        SigV4QueryAuth(self._credentials, SERVICE, self._region).add_auth(signed)
        return str(signed.url)

    def _create_request(self, request: requests.PreparedRequest) -> AWSRequest:
        # Proxies may change other headers.
        names = ("Content-Type", "Idempotency-Key")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        return AWSRequest(request.method, request.url, headers=headers, data=request.body or b"")


class ApiKey(AuthBase):
    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["x-api-key"] = self._key
        return request


class NoAuthentication(AuthBase):
    """Prevent credentials from ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def open_http_session(*, uses_proxies: bool) -> requests.Session:
    """Return a session that connects again if a connection fails, and retries nothing that was sent."""
    session = requests.Session()
    session.trust_env = uses_proxies
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=Retry(total=0, connect=3, backoff_factor=0.5)))
    return session


@dataclass(frozen=True, slots=True)
class Api:
    """An API of the stack. `url` ends in the stage. `authentication` is added to requests unless they replace it."""

    url: str
    session: requests.Session
    authentication: AuthBase

    def send(self, method: str, path: str, *, anonymous: bool = False, **content: Any) -> requests.Response:
        """Send a request. Redirects are not followed, so that credentials are sent only to the API."""
        content.setdefault("auth", NoAuthentication() if anonymous else self.authentication)
        content.setdefault("timeout", TIMEOUT)
        return self.session.request(method, f"{self.url}/{path}", allow_redirects=False, **content)

    def read(self, path: str, **content: Any) -> Json:
        """Return the JSON of a GET. Raises CheckFailedError for another status than 200."""
        response = self.send("GET", path, **content)
        expect_status(response, 200)
        return parse_json(response)


def describe_response(response: requests.Response) -> str:
    """Return the request, the status and the beginning of the body, without the query of presigned URLs."""
    request = response.request
    url = str(request.url).partition("?")[0]
    return f"{request.method} {url}: {response.status_code} {response.text[:300]}".rstrip()


def expect_status(response: requests.Response, *statuses: int) -> None:
    if response.status_code not in statuses:
        raise CheckFailedError(f"{describe_response(response)}; expected {' or '.join(map(str, statuses))}")


def parse_json(response: requests.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise CheckFailedError(f"{describe_response(response)}; expected a JSON object")
    return body


def expect_problem(response: requests.Response, status: int, name: str) -> None:
    """Raise CheckFailedError unless the response has the status and is a problem of this type (RFC 9457)."""
    expect_status(response, status)
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    subject = f"{response.request.method} {str(response.request.url).partition('?')[0]}"
    expect(media_type, "application/problem+json", f"{subject}: Content-Type")
    problem = parse_json(response)
    expect(problem.get("type"), PROBLEM_TYPE + name, f"{subject}: type")
    expect(problem.get("status"), status, f"{subject}: status in the body")
    for member in ("title", "detail"):
        if not problem.get(member):
            raise CheckFailedError(f"{subject}: the problem has no {member}")
