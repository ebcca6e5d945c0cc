"""A verifier of Signature Version 4, written from the specification and independent of botocore.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<key>[^/, ]+)/(?P<day>\d{{8}})/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Identity:
    """Credentials that a verifier knows. `token`: the session token of temporary ones."""

    access_key: str
    secret: str
    token: str | None = None


def verify(  # noqa: PLR0911 - one return for each reason
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    identity: Identity,
    *,
    region: str,
    service: str,
    now: datetime,
) -> str | None:
    """Return why the request is rejected, None if its signature is valid.

    `target` is the path and the query as the client sends them. Names of `headers` are in lower case.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None:
        return "no signature"
    date = headers.get("x-amz-date", "")
    try:
        sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "no date"
    if abs(now - sent) > MAX_SKEW or found["day"] != date[:8]:
        return "signature expired"
    if (found["key"], found["region"], found["service"]) != (identity.access_key, region, service):
        return f"scope {found['key']}/{found['region']}/{found['service']}"
    if headers.get("x-amz-security-token") != identity.token:
        return "session token"
    names = found["headers"].split(";")
    required = {"host"} | {name for name in headers if name.startswith("x-amz-")}
    if names != sorted(names) or not required <= set(names) <= headers.keys():
        return f"signed headers {names}"
    path, _, query = target.partition("?")
    canonical = "\n".join(
        [
            method,
            quote(path.encode(), safe="/-_.~"),  # a second time: only S3 uses the path as it was sent
            _sort_query(query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{found['day']}/{region}/{service}/aws4_request"
    text = "\n".join([ALGORITHM, date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{identity.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    return None if hmac.compare_digest(expected, found["signature"]) else "signature"


def _sort_query(query: str) -> str:
    """Return the query with its names and values encoded as the specification demands, sorted. A plus is a plus."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encoded = [tuple(quote(unquote_to_bytes(text), safe="-_.~") for text in (pair[0], pair[2])) for pair in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))
