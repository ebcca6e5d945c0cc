"""Keep the rate limits of a source across all functions, which share pauses through a store."""

import logging
import re
import time
from collections.abc import Mapping

from modelhaul.domain.errors import RateLimitedError, StorageUnavailableError
from modelhaul.ports.clock import Clock
from modelhaul.ports.rate_limits import RateLimitStore
from modelhaul_sources.http_client import read_retry_after

logger = logging.getLogger(__name__)

_CHECK_INTERVAL = 5.0  # seconds
_DEFAULT_PAUSE = (
    60.0  # for a response without a waiting time, as GitHub documents: docs.github.com/rest/using-the-rest-api
)
_MAX_PAUSE = 24 * 3600.0
_MAX_WINDOW = 3700.0  # the rate limit window of GitHub is an hour; clocks may differ a little
_EPOCH = re.compile(r"[0-9]{1,11}")


class RateBudget:
    """The rate limit `name` of a source. `cause` is added to the message of its errors.

    Safe to use from several threads.
    """

    def __init__(
        self,
        store: RateLimitStore,
        name: str,
        *,
        cause: str = "",
        remedy: str | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._name = name
        self._cause = cause
        self._remedy = remedy
        self._clock = clock
        self._paused_until = 0.0
        self._checked_at = float("-inf")

    def check(self) -> None:
        """Raise RateLimitedError during a pause. Pauses that other functions recorded are found within five seconds."""
        now = self._clock()
        if now - self._checked_at >= _CHECK_INTERVAL:
            self._checked_at = now
            self._paused_until = max(self._paused_until, self._store.find_pause(self._name))
        if self._paused_until > now:
            raise self._create_error(self._paused_until - now)

    def record_response(self, headers: Mapping[str, str]) -> None:
        """Start a pause for all functions if the response used the last request of the budget."""
        if headers.get("x-ratelimit-remaining", "").strip() == "0":
            self._pause(self._read_reset(headers) or _DEFAULT_PAUSE)

    def record_refusal(self, headers: Mapping[str, str]) -> RateLimitedError:
        """Start the pause that a rate-limit response asks for, and return the error to raise."""
        seconds = read_retry_after(headers)
        if seconds is None and headers.get("x-ratelimit-remaining", "").strip() == "0":
            seconds = self._read_reset(headers)
        return self._pause(seconds if seconds is not None else _DEFAULT_PAUSE)

    def _read_reset(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds until the budget is reset."""
        reset = headers.get("x-ratelimit-reset", "").strip()
        if not _EPOCH.fullmatch(reset):
            return None
        return min(max(float(reset) - self._clock(), 1.0), _MAX_WINDOW)

    def _pause(self, seconds: float) -> RateLimitedError:
        seconds = min(max(seconds, 1.0), _MAX_PAUSE)
        until = self._clock() + seconds
        if until > self._paused_until:
            self._paused_until = until
            try:
                self._store.record_pause(self._name, until)
            except StorageUnavailableError as error:
                # The other functions get the pause from the source's responses.
                logger.warning("rate-limit pause not recorded", extra={"limit": self._name, "detail": error.detail})
        return self._create_error(seconds)

    def _create_error(self, seconds: float) -> RateLimitedError:
        return RateLimitedError(
            f"Rate limit exceeded: {self._name}. The next request is allowed in {seconds:,.0f} seconds.{self._cause}",
            retry_after=seconds,
            remedy=self._remedy,
        )
