"""The edge for functions that a queue or a stream invokes."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord, DynamoDBRecordEventName
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import ValidationError

from modelhaul import wiring
from modelhaul.domain.messages import AcceptArchive, Message, ObjectCreated, parse_archive_message, parse_message
from modelhaul.domain.tasks import TaskStatus
from modelhaul.entrypoints.logs import create_logger

type Remaining = Callable[[], float]
"""Seconds that the function has left."""


def run_step[M: Message](
    event: dict[str, Any], context: LambdaContext, kind: type[M], step: Callable[[M, Remaining], None]
) -> dict[str, Any]:
    """Runs `step` for each message of an SQS event and answers with the ones to deliver again.

    That is only a message whose outcome could not be recorded, or which is no message of ours: retries and waits are
    new messages (see `modelhaul.imports.retry`).
    """

    def handle_record(record: SQSRecord) -> None:
        message = parse_message(record.body)
        if not isinstance(message, kind):
            raise TypeError(f"a message {message.kind!r} in the queue of {kind.__name__}")
        _run(record, context, message, step)

    return _process(event, context, handle_record)


def run_archive_step(
    event: dict[str, Any], context: LambdaContext, step: Callable[[AcceptArchive, Remaining], None]
) -> dict[str, Any]:
    """As `run_step`, for a queue in which S3's own events are as well."""

    def handle_record(record: SQSRecord) -> None:
        message = _read_archive_message(record.body)
        if message is not None:
            _run(record, context, message, step)

    return _process(event, context, handle_record)


def record_dead_letters(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ends the task of each dead letter; one that cannot be read is counted and logged."""
    logger = create_logger()

    def handle_record(record: SQSRecord) -> None:
        try:
            message = _read_dead_letter(record.body)
        except ValidationError:
            wiring.create_metrics().count("UnreadableMessages")
            logger.exception("dead letter that is no message of this version; dropped", body=record.body[:1000])
            return
        if message is None:
            return
        with logger.append_context_keys(task_id=message.task_id, attempt=message.attempt):
            wiring.create_runner().record_crash(message)

    return _process(event, context, handle_record)


def publish_ended_tasks(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Announces the end of each task that ended by a record of the tasks' stream, and answers with the records to
    deliver again: from the first of them on, those behind it as well.
    """

    def handle_record(record: DynamoDBRecord) -> None:
        task_id = _find_ended_task(record)
        if task_id is None:
            return
        with create_logger().append_context_keys(task_id=task_id):
            try:
                wiring.create_end_publisher().publish_end(task_id)
            except Exception:
                create_logger().exception("end not announced; the stream delivers it again")
                raise

    return _process(event, context, handle_record, EventType.DynamoDBStreams)


def _find_ended_task(record: DynamoDBRecord) -> str | None:
    """The id of the task that ended by this change; None for what was written before or after that, and for what
    DynamoDB deletes when it expires. (The mapping's filter lets nothing else through.)
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
    # Without the exception for a batch that failed whole: Lambda is told what to deliver again either way.
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
            lambda counted: step(counted, lambda: context.get_remaining_time_in_millis() / 1000),
            deliveries=deliveries,
        )


def _read_archive_message(body: str) -> AcceptArchive | None:
    """The message itself, or the one that an arrived object comes to; None if it belongs to no task."""
    found = parse_archive_message(body)
    if not isinstance(found, ObjectCreated):
        return found
    arrived = found.detail.object
    task_id = wiring.create_arrival_recorder().record_arrival(
        arrived.key, size=arrived.size, etag=arrived.etag, event_id=arrived.sequencer or found.id
    )
    return AcceptArchive(task_id=task_id) if task_id is not None else None


def _read_dead_letter(body: str) -> Message | None:
    try:
        return parse_message(body)
    except ValidationError:
        return _read_archive_message(body)
