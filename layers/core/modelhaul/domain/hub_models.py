"""What is recorded for Hub clients under a name."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelhaul.domain.models import Model

MAX_REVISION = 250  # characters of a revision that Hub clients can read


class MissPolicy(StrEnum):
    """Response to a request for a model that is not imported."""

    NOT_FOUND = "NOT_FOUND"  # an error that says how to import it
    IMPORT = "IMPORT"  # starts the import; the client must retry
    REDIRECT = "REDIRECT"  # starts the import; until its end, files are read from the Hub, and are not inspected


@dataclass(frozen=True, slots=True)
class HubRevision:
    """A revision that was submitted at `moment`, when its commit was already imported or being imported."""

    revision: str
    commit: str
    moment: datetime


@dataclass(frozen=True, slots=True)
class HubEntry:
    """What is recorded under one name.

    `canonical_id`: the `hub_id` for which the name stands, if it is an old name. `models`: in every status, newest
    first, without `gate`, `error`, `last_read_on` and `may_redirect`. `revisions`: newest first; their commits may not
    be READY.
    """

    canonical_id: str | None = None
    models: tuple[Model, ...] = ()
    revisions: tuple[HubRevision, ...] = ()
