"""Results of requests to import missing models, in memory."""

from collections import OrderedDict
from collections.abc import Hashable

from modelhaul.ports.clock import Clock
from modelhaul.ports.missing_models import MissingModel

_MAX_RESULTS = 1000
_MAX_DOCUMENT = 50_000  # bytes; larger documents are not kept
_TTL = 60  # seconds
_RETRYABLE_TTL = 10


class MissResultCache:
    """Keeps the last results for a short time.

    This protects the Hub from clients that repeat a request, and saves an invocation for each of these requests.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._results: OrderedDict[Hashable, tuple[float, MissingModel]] = OrderedDict()

    def find(self, key: Hashable) -> MissingModel | None:
        expires_at, result = self._results.get(key, (0.0, None))
        return result if self._clock() < expires_at else None

    def save(self, key: Hashable, result: MissingModel) -> None:
        document = result.upstream.document if result.upstream else None
        if document is not None and len(document.body) > _MAX_DOCUMENT:
            return
        is_retryable = result.error is not None and result.error.retryable
        self._results[key] = (self._clock() + (_RETRYABLE_TTL if is_retryable else _TTL), result)
        self._results.move_to_end(key)
        if len(self._results) > _MAX_RESULTS:
            self._results.popitem(last=False)
