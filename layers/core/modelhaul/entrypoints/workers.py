"""Entry point of functions that a queue or a stream invokes."""

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord, DynamoDBRecordEventName
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import ValidationError

from modelhaul import wiring
from modelhaul.domain.callers import name_requester
from modelhaul.domain.messages import AcceptArchive, Message, ObjectCreated, parse_archive_message, parse_message
from modelhaul.domain.tasks import TaskStatus
from modelhaul.entrypoints.logs import create_logger

type Remaining = Callable[[], float]
"""Remaining seconds of the function's execution time."""


def run_step(
    event: dict[str, Any], context: LambdaContext, steps: Mapping[type[Message], Callable[[Any, Remaining], None]]
) -> dict[str, Any]:
    """Run the step of its type for each message of an SQS event, and return the messages to redeliver.

    Only messages that are invalid, or whose outcome could not be recorded, are redelivered. Retries and waits are new
    messages (see `modelhaul.imports.retry`).
    """

    def handle_record(record: SQSRecord) -> None:
        message = parse_message(record.body)
        step = steps.get(type(message))
        if step is None:
            expected = ", ".join(kind.__name__ for kind in steps)
            raise TypeError(f"Unexpected message {message.kind!r} in the queue for {expected}.")
        _run(record, context, message, step)

    return _process(event, context, handle_record)


def run_archive_step(
    event: dict[str, Any], context: LambdaContext, step: Callable[[AcceptArchive, Remaining], None]
) -> dict[str, Any]:
    """Run `step` like `run_step`, for a queue that also contains S3 events."""

    def handle_record(record: SQSRecord) -> None:
        message = _read_archive_message(record.body)
        if message is not None:
            _run(record, context, message, step)

    return _process(event, context, handle_record)


def record_dead_letters(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """End the task of each dead letter. A message that cannot be parsed is logged and deleted."""
    logger = create_logger()

    def handle_record(record: SQSRecord) -> None:
        try:
            message = _read_dead_letter(record.body)
        except ValidationError:
            logger.exception(
                "deleted unreadable dead letter", body=record.body[:1000], queue=_find_source_queue(record)
            )
            return
        if message is None:
            return
        with logger.append_context_keys(task_id=message.task_id, attempt=message.attempt, step=message.kind):
            wiring.create_runner().record_crash(message)

    return _process(event, context, handle_record)


def publish_ended_tasks(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Publish an event for each task that ended according to a stream record, and return the records to redeliver.

    The stream redelivers the first of these records and all records after it.
    """

    def handle_record(record: DynamoDBRecord) -> None:
        task_id = _find_ended_task(record)
        if task_id is None:
            return
        with create_logger().append_context_keys(task_id=task_id):
            try:
                wiring.create_end_publisher().publish_end(task_id)
            except Exception:
                create_logger().exception("event not published; the stream will redeliver the record")
                raise

    return _process(event, context, handle_record, EventType.DynamoDBStreams)


def publish_recorded_entries(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Publish an event for each audit entry that a stream record adds, as `publish_ended_tasks` does for tasks.

    The filter of the event source mapping drops the records of expired entries.
    """

    def handle_record(record: DynamoDBRecord) -> None:
        change = record.dynamodb
        if record.event_name is not DynamoDBRecordEventName.INSERT or change is None:
            return
        entry_id = str(change.keys["id"])
        with create_logger().append_context_keys(entry_id=entry_id):
            try:
                wiring.create_entry_publisher().publish_entry(entry_id)
            except Exception:
                create_logger().exception("event not published; the stream will redeliver the record")
                raise

    return _process(event, context, handle_record, EventType.DynamoDBStreams)


def _find_ended_task(record: DynamoDBRecord) -> str | None:
    """Return the ID of the task that ended with this change.

    None for other changes of a task, and for expired items that DynamoDB deletes. The filter of the event source
    mapping drops all other records.
    """
    change = record.dynamodb
    if record.event_name is not DynamoDBRecordEventName.MODIFY or change is None:
        return None
    before, after = change.old_image.get("status"), change.new_image.get("status")
    if before != TaskStatus.PENDING or after not in (TaskStatus.DONE, TaskStatus.FAILED):
        return None
    return str(change.keys["id"])


def _process[R](
    event: dict[str, Any],
    context: LambdaContext,
    handle_record: Callable[[R], None],
    event_type: EventType = EventType.SQS,
) -> dict[str, Any]:
    create_logger().set_correlation_id(context.aws_request_id)
    # No exception if the whole batch fails, because the response tells Lambda in any case what to redeliver.
    processor = BatchProcessor(event_type=event_type, raise_on_entire_batch_failure=False)
    return dict(
        process_partial_response(event=event, record_handler=handle_record, processor=processor, context=context)
    )


def _run[M: Message](
    record: SQSRecord, context: LambdaContext, message: M, step: Callable[[M, Remaining], None]
) -> None:
    deliveries = int(record.attributes.approximate_receive_count)
    context_keys = {"task_id": message.task_id, "attempt": message.attempt, "deliveries": deliveries}
    with create_logger().append_context_keys(**context_keys):
        wiring.create_runner().run(
            message,
            lambda marked: step(marked, lambda: context.get_remaining_time_in_millis() / 1000),
            deliveries=deliveries,
        )


def _read_archive_message(body: str) -> AcceptArchive | None:
    """Return the message, or for an S3 event a message for the object's task. None if the object has no task."""
    found = parse_archive_message(body)
    if not isinstance(found, ObjectCreated):
        return found
    arrived, requester = found.detail.object, found.detail.requester
    task_id = wiring.create_arrival_recorder().record_arrival(
        arrived.key,
        size=arrived.size,
        etag=arrived.etag,
        event_id=arrived.sequencer or found.id,
        submitted_by=name_requester(requester) if requester else None,
    )
    return AcceptArchive(task_id=task_id) if task_id is not None else None


def _find_source_queue(record: SQSRecord) -> str | None:
    """Return the name of the queue that the dead letter comes from. None if SQS did not move it here.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
    """
    arn = record.attributes.dead_letter_queue_source_arn
    return arn.rpartition(":")[2] if arn else None


def _read_dead_letter(body: str) -> Message | None:
    try:
        return parse_message(body)
    except ValidationError:
        return _read_archive_message(body)
