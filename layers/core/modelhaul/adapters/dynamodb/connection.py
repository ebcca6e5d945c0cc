"""The client that all tables share. Sends and retries requests, and translates errors."""

import random
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import batched

from botocore.exceptions import ClientError
from botocore.session import Session
from pynamodb.connection import Connection
from pynamodb.exceptions import (
    DeleteError,
    DoesNotExist,
    PutError,
    PynamoDBException,
    TransactWriteError,
    UpdateError,
)
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.aws import is_temporary, open_session
from modelhaul.domain.errors import StorageUnavailableError

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
BATCH_LIMIT = 25
BATCH_GET_LIMIT = 100
_KEY_LIMIT = 2048  # bytes of a partition key
_MAX_ATTEMPTS = 8
# Attempts of a write to the table of files that is throttled, or that conflicts with another transaction. All files of
# a task are in one partition, which accepts 1,000 write units a second, or about 80 groups of files. With this number
# of attempts every waiting function succeeds.
_MAX_BUSY_ATTEMPTS = 60
_THROUGHPUT_EXCEEDED = "ProvisionedThroughputExceededException"
# In a transaction, the code does not end with "Exception".
_THROTTLES = {"ThrottlingError", "ThrottlingException", "ProvisionedThroughputExceeded", _THROUGHPUT_EXCEEDED}
_CONFLICTS = {"TransactionConflict", "TransactionConflictException"}
_CONCURRENCY = 4
CONDITION_FAILED = "ConditionalCheckFailed"  # in a transaction; the code of a single write ends with "Exception"


class CancelledError(Exception):
    """The write was cancelled. It may succeed if it is retried on the current items."""

    def __init__(self, codes: Sequence[str | None] = ()) -> None:
        super().__init__()
        self._codes = {code for code in codes if code is not None}

    @property
    def is_busy(self) -> bool:
        """Return whether the write was throttled, or conflicts with another transaction, and a retry may help."""
        return not self.is_permanent and not (_THROTTLES | _CONFLICTS).isdisjoint(self._codes)

    @property
    def is_permanent(self) -> bool:
        """Return whether a retry does not help, for example because of a ValidationError."""
        return not self._codes <= _THROTTLES | _CONFLICTS | {CONDITION_FAILED}

    @property
    def is_refused(self) -> bool:
        """Return whether a condition of the transaction does not hold."""
        return CONDITION_FAILED in self._codes

    @property
    def reason(self) -> str:
        """Return DynamoDB's error codes."""
        return ", ".join(sorted(self._codes))


def find_code(error: PynamoDBException) -> str | None:
    """Return DynamoDB's error code, None without a response (pynamodb 6.1's `cause_response_code` fails then)."""
    return error.cause_response_code if isinstance(error.cause, ClientError) else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate pynamodb's exceptions to StorageUnavailableError."""
    try:
        yield
    except PynamoDBException as error:
        # The error's message contains table names and account IDs, so it is not used.
        reason = find_code(error) or type(error.cause or error).__name__
        raise StorageUnavailableError(
            f"DynamoDB request failed ({reason}).", is_outage=is_temporary(error.cause)
        ) from error


def retry_write[T](write: Callable[[], T], *, await_capacity: bool = False) -> T:
    """Retry `write` while it is cancelled: up to 8 attempts, with pauses of less than 5 seconds in total.

    With `await_capacity`, a write is retried for about 30 seconds while it is throttled or conflicts with another
    transaction. Raises StorageUnavailableError after the last attempt, and at once if a retry does not help.
    """
    attempt = 1
    while True:
        try:
            return write()
        except CancelledError as cancelled:
            limit = _MAX_BUSY_ATTEMPTS if await_capacity and cancelled.is_busy else _MAX_ATTEMPTS
            if cancelled.is_permanent or attempt >= limit:
                raise StorageUnavailableError(
                    f"DynamoDB write failed ({cancelled.reason}).", is_outage=cancelled.is_busy
                ) from cancelled
        time.sleep(random.uniform(0, min(1.0, 0.05 * 2**attempt)))  # noqa: S311 - jitter
        attempt += 1


class _Connection(Connection):
    """Connection with the session that all clients share, instead of a session for each thread."""

    @property
    def session(self) -> Session:
        return open_session()


def open_connection(region: str | None) -> Connection:
    """Open the connection. botocore finds the endpoint (AWS_ENDPOINT_URL). A request has three attempts of at most 7 s.

    The client is created immediately. pynamodb would create it at the first request, which is after a function's init
    phase, and possibly in two threads at once.
    """
    connection = _Connection(region=region, connect_timeout_seconds=2, read_timeout_seconds=5, max_retry_attempts=2)
    _ = connection.client
    return connection


def open_statistics_connection(connection: Connection) -> Connection:
    """Open a connection for statistics, which must not delay a response: a request has one attempt of at most 2 s.

    The first request creates the client, in 3 ms of CPU time. Most functions send none.
    """
    return _Connection(
        region=connection.region, connect_timeout_seconds=1, read_timeout_seconds=1, max_retry_attempts=0
    )


def bind_item[I: Item](item: type[I], table_name: str, connection: Connection) -> type[I]:
    """Return the pynamodb model of `item` for a table. All share a connection, as a client takes 120 ms to create."""
    meta = type("Meta", (), {"table_name": table_name})
    bound: type[I] = types.new_class(item.__name__, (item,), exec_body=lambda body: body.update(Meta=meta))
    table = bound._get_connection()  # noqa: SLF001 - pynamodb has no public method to set a model's connection
    with suppress(ValueError):  # another repository has already bound the table
        connection.add_meta_table(table.get_meta_table())
    table.connection = connection
    return bound


def is_key(text: str) -> bool:
    """Return whether the text is valid as a partition key."""
    try:
        return 0 < len(text.encode()) <= _KEY_LIMIT
    except UnicodeEncodeError:
        return False


def find_item[I: Item](item: type[I], key: str) -> I | None:
    """Return the item with this partition key, None if it does not exist. Strongly consistent."""
    if not is_key(key):
        return None
    try:
        return item.get(key, consistent_read=True)
    except DoesNotExist:
        return None


def update_item(
    item: Item, actions: Sequence[Action], condition: Condition | None = None, *, await_capacity: bool = False
) -> bool:
    """Update an item and its attributes in memory. Return False if the condition does not hold."""

    def update() -> bool:
        try:
            item.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            code = find_code(error)
            if code == f"{CONDITION_FAILED}Exception":
                return False
            if code in _CONFLICTS or (await_capacity and code in _THROTTLES):
                raise CancelledError([code]) from error
            raise
        return True

    return retry_write(update, await_capacity=await_capacity)


def save_items[I: Item](table: type[I], items: Sequence[I]) -> None:
    """Put up to 25 items, which replace earlier items with the same keys."""
    _write_batch(table, saved=items, await_capacity=True)


def delete_items[I: Item](table: type[I], items: Sequence[I]) -> None:
    """Delete up to 25 items. No-op for items that do not exist."""
    _write_batch(table, deleted=items, await_capacity=False)


def _write_batch[I: Item](
    table: type[I], *, saved: Sequence[I] = (), deleted: Sequence[I] = (), await_capacity: bool
) -> None:
    def write() -> None:
        try:
            with table.batch_write() as batch:
                for item in saved:
                    batch.save(item)
                for item in deleted:
                    batch.delete(item)
        except PutError as error:
            # An error without a cause means that DynamoDB left some items unprocessed.
            code = find_code(error) if error.cause else _THROUGHPUT_EXCEEDED
            if code not in _THROTTLES:
                raise
            raise CancelledError([code]) from error

    retry_write(write, await_capacity=await_capacity)


def record_statistic(item: type[Item], key: str, action: Action, condition: Condition) -> None:
    """Update the item with this partition key, without a retry. No-op if the condition does not hold.

    Unlike pynamodb's own update, DynamoDB does not return the item. `item` is bound to `open_statistics_connection`.
    """
    table = item._get_connection()  # noqa: SLF001 - pynamodb's public method requests all attributes
    try:
        table.update_item(key, actions=[action], condition=condition)
    except UpdateError as error:
        if find_code(error) != f"{CONDITION_FAILED}Exception":
            raise


def delete_item(item: Item, condition: Condition) -> bool:
    """Delete an item. Return False if the condition does not hold, for example because the item does not exist."""
    try:
        item.delete(condition=condition)
    except DeleteError as error:
        if find_code(error) == f"{CONDITION_FAILED}Exception":
            return False
        raise
    return True


def map_parallel[T, R](call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the results of `call` for the items, in their order. The calls run in parallel threads."""
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        return list(pool.map(call, items))


def write_parallel[T](write: Callable[[tuple[T, ...]], None], items: Iterable[T], batch_size: int) -> None:
    """Call `write` for batches of the items in parallel threads."""
    map_parallel(write, batched(items, batch_size, strict=False))


# botocore's retries of a transaction have the same token, by which DynamoDB recognizes a repeated request. A repeated
# call of a repository has a different token. After a failed condition, the repositories read the items to find out
# whether an earlier call succeeded.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
@contextmanager
def open_transaction(connection: Connection) -> Iterator[TransactWrite]:
    """Open a transaction, and commit it when the block ends. Raises CancelledError if it is cancelled or throttled."""
    try:
        with TransactWrite(connection=connection) as transaction:
            yield transaction
    except TransactWriteError as error:
        code = find_code(error)
        if code == "TransactionCanceledException":
            raise CancelledError([r.code if r else None for r in error.cancellation_reasons]) from error
        if code in _THROTTLES:
            raise CancelledError([code]) from error
        raise


def to_moment(epoch: float) -> datetime:
    """Convert epoch seconds to a UTC datetime."""
    return datetime.fromtimestamp(epoch, UTC)
