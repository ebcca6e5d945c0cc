"""Times in requests."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_YEARS = range(2000, 3000)


def parse_time(value: object) -> datetime | None:
    """Return the time of an ISO 8601 text. Raises ValueError."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError("must be an ISO 8601 time with a time zone, such as 2027-01-01T00:00:00Z") from None


def _check_year(moment: datetime) -> datetime:
    # Python cannot convert the first and the last day of its calendar to another time zone.
    if moment.year not in _YEARS:
        raise ValueError(f"must be in the years {_YEARS.start} to {_YEARS.stop - 1}")
    return moment.astimezone(UTC)


# The limit of a period, in UTC.
Moment = Annotated[Annotated[AwareDatetime, AfterValidator(_check_year)] | None, BeforeValidator(parse_time)]
