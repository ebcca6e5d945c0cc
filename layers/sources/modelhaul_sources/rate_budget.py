"""Keeps to a source's limits together with all other functions, which learn of a pause from a shared store."""

import logging
import re
import time
from collections.abc import Mapping

from modelhaul.domain.errors import RateLimitedError, StorageUnavailableError
from modelhaul.ports.clock import Clock
from modelhaul.ports.rate_limits import RateLimitStore
from modelhaul_sources.http_client import read_retry_after

logger = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds
_DEFAULT_PAUSE = 60.0  # what GitHub asks for where it says nothing: docs.github.com/rest/using-the-rest-api
_MAX_PAUSE = 24 * 3600.0
_MAX_WINDOW = 3700.0  # GitHub's are an hour; a clock may be off by a little
_EPOCH = re.compile(r"[0-9]{1,11}")


class RateBudget:
    """What may still be asked under the limit `name`. Safe to use from several threads."""

    def __init__(self, store: RateLimitStore, name: str, *, advice: str = "", clock: Clock = time.time) -> None:
        self._store = store
        self._name = name
        self._advice = advice
        self._clock = clock
        self._until = 0.0
        self._looked_at = float("-inf")

    def check(self) -> None:
        """Raises RateLimitedError while a pause holds, whoever learned of it; another function's is noticed within
        five seconds.
        """
        now = self._clock()
        if now - self._looked_at >= _LOOK_EVERY:
            self._looked_at = now
            self._until = max(self._until, self._store.find_pause(self._name))
        if self._until > now:
            raise self._describe(self._until - now)

    def note(self, headers: Mapping[str, str]) -> None:
        """Starts a pause for all if these headers say that nothing is left of the budget."""
        if headers.get("x-ratelimit-remaining", "").strip() == "0":
            self._pause(self._find_reset(headers) or _DEFAULT_PAUSE)

    def refuse(self, headers: Mapping[str, str]) -> RateLimitedError:
        """Starts the pause that a refusal asks for. Returns the error that says so."""
        seconds = read_retry_after(headers)
        if seconds is None and headers.get("x-ratelimit-remaining", "").strip() == "0":
            seconds = self._find_reset(headers)
        return self._pause(seconds if seconds is not None else _DEFAULT_PAUSE)

    def _find_reset(self, headers: Mapping[str, str]) -> float | None:
        reset = headers.get("x-ratelimit-reset", "").strip()
        if not _EPOCH.fullmatch(reset):
            return None
        return min(max(float(reset) - self._clock(), 1.0), _MAX_WINDOW)

    def _pause(self, seconds: float) -> RateLimitedError:
        seconds = min(max(seconds, 1.0), _MAX_PAUSE)
        until = self._clock() + seconds
        if until > self._until:
            self._until = until
            try:
                self._store.record_pause(self._name, until)
            except StorageUnavailableError as error:
                logger.warning(
                    "the pause was not recorded; other functions will learn of it from the source",
                    extra={"limit": self._name, "detail": error.detail},
                )
        return self._describe(seconds)

    def _describe(self, seconds: float) -> RateLimitedError:
        return RateLimitedError(
            f"{self._name} was asked as often as its limit allows; ask again in {seconds:,.0f} s.{self._advice}",
            retry_after=seconds,
        )
