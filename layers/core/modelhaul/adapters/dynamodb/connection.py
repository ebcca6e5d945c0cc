"""The client that all tables share, and how requests are sent, retried and translated into errors."""

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
from pynamodb.exceptions import DeleteError, DoesNotExist, PynamoDBException, TransactWriteError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.aws import open_session
from modelhaul.domain.errors import StorageUnavailableError

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
TRANSACTION_LIMIT = 100
BATCH_LIMIT = 25
BATCH_GET_LIMIT = 100
_KEY_LIMIT = 2048  # bytes of a partition key
_TRIES = 8
# Of a write that meets the limit of its partition: all files of a task are in one, which takes 1,000 units a second, 5
# groups of files. Every function that waits gets its turn.
_THROTTLED_TRIES = 60
THROTTLES = {"ThrottlingError", "ThrottlingException", "ProvisionedThroughputExceededException"}
_PARALLEL_WRITES = 4
CONDITION_FAILED = "ConditionalCheckFailed"  # in a transaction; a single write's code adds "Exception"


class CancelledError(Exception):
    """A write that was not done, but could be if it is tried again on what is there now."""

    def __init__(self, codes: Sequence[str | None] = ()) -> None:
        super().__init__()
        self._codes = codes

    @property
    def last_condition_failed(self) -> bool:
        """Whether the condition of the transaction's last action did not hold."""
        return list(self._codes[-1:]) == [CONDITION_FAILED]

    @property
    def throttled(self) -> bool:
        return not THROTTLES.isdisjoint(self._codes)


def find_code(error: PynamoDBException) -> str | None:
    """DynamoDB's code, None if it did not answer (there pynamodb 6.1's own `cause_response_code` fails)."""
    return error.cause_response_code if isinstance(error.cause, ClientError) else None


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except PynamoDBException as error:
        # The error's own text names tables and accounts.
        reason = find_code(error) or type(error.cause or error).__name__
        raise StorageUnavailableError(f"DynamoDB request failed ({reason}).") from error


def retry_write[T](write: Callable[[], T], *, to_files: bool = False) -> T:
    """Tries until `write` is not cancelled, at most eight times with less than five seconds of pauses; one that goes
    `to_files` and is throttled for about half a minute.
    """
    for attempt in range(1, _THROTTLED_TRIES + 1):
        try:
            return write()
        except CancelledError as cancelled:
            if attempt >= _TRIES and not (to_files and cancelled.throttled):
                break
        time.sleep(random.uniform(0, min(1.0, 0.05 * 2**attempt)))  # noqa: S311 - spreads the writers
    raise StorageUnavailableError("The database is too busy with other writes to the same record.")


class _Connection(Connection):
    """Over the session that all clients share, instead of one for each thread."""

    @property
    def session(self) -> Session:
        return open_session()


def open_connection(region: str | None) -> Connection:
    """Opens the connection for the endpoint that botocore finds (AWS_ENDPOINT_URL). A request is tried three times, of
    at most 7 s each.

    Its client is built now: pynamodb would build it at the first call, too late for a function's init phase, and
    perhaps in two threads at once.
    """
    connection = _Connection(region=region, connect_timeout_seconds=2, read_timeout_seconds=5, max_retry_attempts=2)
    _ = connection.client
    return connection


def bind_item[I: Item](item: type[I], table_name: str, connection: Connection) -> type[I]:
    """The model for one table. All share a connection, since each client costs 120 ms of a cold start."""
    meta = type("Meta", (), {"table_name": table_name})
    bound: type[I] = types.new_class(item.__name__, (item,), exec_body=lambda body: body.update(Meta=meta))
    table = bound._get_connection()  # noqa: SLF001 - pynamodb has no public way to give a model its connection
    with suppress(ValueError):  # another repository has bound the table
        connection.add_meta_table(table.get_meta_table())
    table.connection = connection
    return bound


def is_key(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= _KEY_LIMIT
    except UnicodeEncodeError:
        return False


def find_item[I: Item](item: type[I], key: str) -> I | None:
    if not is_key(key):
        return None
    try:
        return item.get(key, consistent_read=True)
    except DoesNotExist:
        return None


def update_item(item: Item, actions: Sequence[Action], condition: Condition) -> bool:
    """False if the condition does not hold; else the item has all attributes as they are after it."""

    def update() -> bool:
        try:
            item.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            code = find_code(error)
            if code == f"{CONDITION_FAILED}Exception":
                return False
            if code == "TransactionConflictException":
                raise CancelledError from error
            raise
        return True

    return retry_write(update)


def delete_item(item: Item, condition: Condition) -> None:
    """Without effect if the condition does not hold, as it does not once the item is gone."""
    try:
        item.delete(condition=condition)
    except DeleteError as error:
        if find_code(error) != f"{CONDITION_FAILED}Exception":
            raise


def write_parallel[T](write: Callable[[tuple[T, ...]], None], items: Iterable[T], batch_size: int) -> None:
    with ThreadPoolExecutor(_PARALLEL_WRITES) as pool:
        for _ in pool.map(write, batched(items, batch_size, strict=False)):
            pass


# botocore's own retries of a transaction carry one token, by which DynamoDB recognizes a repetition. A call that is
# repeated from outside has a different token: what a failed condition means is read back before it counts.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
@contextmanager
def open_transaction(connection: Connection) -> Iterator[TransactWrite]:
    """Raises CancelledError if DynamoDB cancels or throttles it."""
    try:
        with TransactWrite(connection=connection) as transaction:
            yield transaction
    except TransactWriteError as error:
        code = find_code(error)
        if code == "TransactionCanceledException":
            raise CancelledError([r.code if r else None for r in error.cancellation_reasons]) from error
        if code in THROTTLES:
            raise CancelledError([code]) from error
        raise


def to_moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
