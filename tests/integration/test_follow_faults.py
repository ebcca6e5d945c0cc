"""Follows in DynamoDB whose replies are lost, and the function check_follows, which cannot be invoked."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from botocore.stub import Stubber

from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.follows import DynamoDBFollowRepository
from modelhaul.adapters.follow_checks import LambdaFollowChecks, create_lambda_client
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.follows import DueFollow, Follow, pause
from modelhaul.domain.models import Source
from modelhaul.ports.follows import FollowRepository
from tests.contract.backends import REGION, open_aws
from tests.contract.database_builders import START, at
from tests.contract.dynamodb import MotoDynamoDB, control_moto, garble_reply, lose_reply, refuse
from tests.contract.test_follow_repository import make_follow

WORDS = "no access to arn:aws:dynamodb:us-east-1:123456789012:table/follows"
CALLS: dict[str, Callable[[FollowRepository], object]] = {
    "add_follow": lambda follows: follows.add_follow(make_follow("acme/other")),
    "find_follow": lambda follows: follows.find_follow("a"),
    "list_follows": lambda follows: follows.list_follows(),
    "list_due": lambda follows: follows.list_due(at(START), 1),
    "change_follow": lambda follows: follows.change_follow("a", pause),
    "remove_follow": lambda follows: follows.remove_follow("a"),
}


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[DynamoDBFollowRepository, MotoDynamoDB]]:
    with open_aws("moto"), control_moto() as dynamodb:
        follows = DynamoDBFollowRepository(open_connection(REGION), follows_table=f"follows-{uuid.uuid4().hex}")
        follows._follows.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        yield follows, dynamodb


@pytest.fixture
def dynamodb(opened: tuple[DynamoDBFollowRepository, MotoDynamoDB]) -> Iterator[MotoDynamoDB]:
    opened[1].reset()
    yield opened[1]
    opened[1].reset()


@pytest.fixture
def follows(opened: tuple[DynamoDBFollowRepository, MotoDynamoDB]) -> DynamoDBFollowRepository:
    return opened[0]


@pytest.fixture
def follow(follows: DynamoDBFollowRepository) -> Follow:
    made = make_follow(f"acme/{uuid.uuid4()}")
    assert follows.add_follow(made)
    return made


def test_the_calls_are_all_of_the_port() -> None:
    assert {name for name in vars(FollowRepository) if not name.startswith("_")} == set(CALLS)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refusal_becomes_storage_unavailable_without_names(
    follows: DynamoDBFollowRepository, dynamodb: MotoDynamoDB, call: Callable[[FollowRepository], object]
) -> None:
    dynamodb.inject("", lambda *_: refuse(400, "AccessDeniedException", WORDS), times=100)
    with pytest.raises(StorageUnavailableError, match="AccessDeniedException") as caught:
        call(follows)
    assert "arn:" not in caught.value.detail


@pytest.mark.parametrize("fault", [lose_reply, garble_reply])
class TestLostReply:
    """Each write is done, but its first response does not arrive, and botocore sends it again."""

    def test_of_add_follow(self, follows: DynamoDBFollowRepository, dynamodb: MotoDynamoDB, fault: Any) -> None:
        made = make_follow(f"acme/{uuid.uuid4()}")
        dynamodb.inject("PutItem", fault)
        assert follows.add_follow(made), "it is not a duplicate of itself"
        assert dynamodb.count("PutItem") == 2
        assert follows.find_follow(made.id) == made

    def test_of_change_follow(
        self, follows: DynamoDBFollowRepository, dynamodb: MotoDynamoDB, follow: Follow, fault: Any
    ) -> None:
        """A change is applied to its own result. The changes of follows have the same result then."""
        dynamodb.reset()
        dynamodb.inject("PutItem", fault)
        changed = follows.change_follow(follow.id, pause)
        assert changed == replace(pause(follow), version=3)
        assert follows.find_follow(follow.id) == changed

    def test_of_a_change_that_is_then_refused(
        self, follows: DynamoDBFollowRepository, dynamodb: MotoDynamoDB, follow: Follow, fault: Any
    ) -> None:
        """As the result of a check, after which the lease is over."""
        dynamodb.reset()
        leased = follows.change_follow(follow.id, lambda found: replace(found, lease_id="a"))
        assert leased is not None
        dynamodb.inject("PutItem", fault)

        def end(found: Follow) -> Follow | None:
            return replace(found, lease_id=None, failures=found.failures + 1) if found.lease_id == "a" else None

        follows.change_follow(follow.id, end)
        found = follows.find_follow(follow.id)
        assert found is not None
        assert (found.lease_id, found.failures) == (None, 1)


def test_reads_are_strongly_consistent_except_of_the_index(
    follows: DynamoDBFollowRepository, dynamodb: MotoDynamoDB, follow: Follow
) -> None:
    dynamodb.reset()
    for call in CALLS.values():
        call(follows)
    reads = [call.body for call in dynamodb.calls if call.operation in ("GetItem", "Scan", "Query")]
    assert len(reads) >= 4
    assert all(read.get("ConsistentRead") or "IndexName" in read for read in reads)


def test_checks_are_started_without_waiting_for_their_result() -> None:
    with open_aws("moto"), closing(create_lambda_client(REGION)) as client, Stubber(client) as stubber:
        wanted = {"FunctionName": "check", "InvocationType": "Event", "Payload": b"{}"}
        stubber.add_response("invoke", {"StatusCode": 202}, wanted)
        LambdaFollowChecks(client, "check").start()
        wanted["Payload"] = b'{"first": {"id": "a", "source": "GITHUB"}}'
        stubber.add_response("invoke", {"StatusCode": 202}, wanted)
        LambdaFollowChecks(client, "check").start(DueFollow("a", Source.GITHUB))
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["TooManyRequestsException", "AccessDeniedException", "ServiceException"])
def test_a_refused_invocation_is_an_error_without_names(code: str) -> None:
    with open_aws("moto"), closing(create_lambda_client(REGION)) as client, Stubber(client) as stubber:
        stubber.add_client_error("invoke", code, WORDS, 429)
        with pytest.raises(StorageUnavailableError) as caught:
            LambdaFollowChecks(client, "check").start()
        assert caught.value.detail == f"Lambda Invoke failed ({code})."
