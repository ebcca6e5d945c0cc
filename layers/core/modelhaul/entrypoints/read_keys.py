"""Bodies of requests and responses of the routes of read keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from modelhaul.catalog.presentation import format_time
from modelhaul.domain.read_keys import MAX_KEY_NAME, ReadKey, Scope, is_key_name
from modelhaul.entrypoints.times import parse_time

_MAX_LIFETIME = timedelta(days=3653)  # 10 years


def _check_name(name: str) -> str:
    if not is_key_name(name):
        raise ValueError(f"must have 1 to {MAX_KEY_NAME} printable characters, and not only spaces")
    return name


def _check_expiry(moment: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < moment <= now + _MAX_LIFETIME:
        raise ValueError("must be in the future and at most 10 years away")
    return moment.astimezone(UTC)


class KeyRequest(BaseModel):
    """A key to create."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_KEY_NAME,
            description="Any name, such as that of the person or cluster that uses the key.",
            examples=["inference-cluster"],
        ),
        AfterValidator(_check_name),
    ]
    scopes: list[Scope] = Field(
        default=[Scope.READ],
        max_length=len(Scope),
        description="`read` is always included. `import` lets a request for a model that is not imported start its "
        "import, if `HubOnMiss` is `IMPORT` or `REDIRECT`.",
    )
    expires_at: Annotated[
        Annotated[AwareDatetime, AfterValidator(_check_expiry)] | None, BeforeValidator(parse_time)
    ] = Field(
        default=None,
        description="When the key expires, at most 10 years from now. Default: the key does not expire.",
    )


def present_key(record: ReadKey, now: datetime) -> dict[str, Any]:
    """Return the record of a key."""
    return {
        **_present_record(record),
        "expired": record.expires_at is not None and record.expires_at <= now,
        "last_used_on": record.last_used_on and record.last_used_on.isoformat(),
        **({"created_by": record.created_by} if record.created_by else {}),
    }


def present_created_key(key: str, record: ReadKey) -> dict[str, Any]:
    """Return the record of a new key together with the key itself."""
    return {**_present_record(record), "key": key}


def _present_record(record: ReadKey) -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "name": record.name,
        "scopes": list(record.scopes),
        "created_at": format_time(record.created_at),
        "expires_at": record.expires_at and format_time(record.expires_at),
    }
