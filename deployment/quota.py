"""The concurrency quota of AWS Lambda, which all functions of an account share in a Region.

A new account has 10 concurrent executions. If the consumers of the queues use all of them, API requests fail with a
response of 500.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

DEFAULT_TRANSFERS = 16
MIN_TRANSFERS = 2
"""Default and minimum of the parameter TransferConcurrency. SQS event sources have no lower maximum than 2."""

_STEPS = 2
"""Functions whose maximum is TransferConcurrency: transfer_files and publish_models."""

_OTHER_CONSUMERS = 10
_MIN_OTHER_CONSUMERS = 4
"""Maximum concurrency of accept_archive and plan_import together, by default and with TransferConcurrency=2."""

CONSUMER_SHARE = 0.8
"""The most that the consumers of the queues may use of the quota. API requests need the rest."""

QUOTA_URL = "https://console.aws.amazon.com/servicequotas/home/services/lambda/quotas/L-B99A9384"


@dataclass(frozen=True)
class Concurrency:
    """Concurrent executions of an account in a Region."""

    quota: int
    unreserved: int
    """The quota without the concurrency that other functions have reserved."""


def read_concurrency(client: "LambdaClient") -> Concurrency:
    limit = client.get_account_settings()["AccountLimit"]
    return Concurrency(limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"])


def count_consumers(transfers: int) -> int:
    """Return how many functions the queues of a stack may start at the same time, without failed messages."""
    return _STEPS * transfers + (_MIN_OTHER_CONSUMERS if transfers == MIN_TRANSFERS else _OTHER_CONSUMERS)


def fits(transfers: int, unreserved: int) -> bool:
    """Return whether TransferConcurrency leaves room for API requests."""
    return count_consumers(transfers) <= CONSUMER_SHARE * unreserved


def choose_transfer_concurrency(unreserved: int) -> int:
    """Return the largest TransferConcurrency that leaves room for API requests, from the minimum to the default."""
    candidates = range(DEFAULT_TRANSFERS, MIN_TRANSFERS, -1)
    return next((transfers for transfers in candidates if fits(transfers, unreserved)), MIN_TRANSFERS)


def describe_choice(concurrency: Concurrency, transfers: int, region: str) -> str:
    """Return what to tell the user about TransferConcurrency, or "" if the account has enough concurrency for it.

    Not all users who choose less than the default want to be asked again: only those with the minimum, which may be
    from the time when the account was new.
    """
    unreserved = concurrency.unreserved
    found = f"Lambda may run {unreserved} functions at the same time in {region}"
    if unreserved < concurrency.quota:
        found += f" (quota: {concurrency.quota}, of which other functions reserve a part)"
    chosen = choose_transfer_concurrency(unreserved)
    if fits(transfers, unreserved):
        if chosen == DEFAULT_TRANSFERS:
            is_raisable = transfers == MIN_TRANSFERS
            return f"{found}, so TransferConcurrency={transfers} can be raised to {chosen}." if is_raisable else ""
        found += f". TransferConcurrency={transfers} leaves room for API requests."
    else:
        found += (
            f". TransferConcurrency={transfers} allows {count_consumers(transfers)} functions for imports: "
            "while imports run, API requests can fail with 500."
        )
        if chosen < transfers:
            found += f" TransferConcurrency={chosen} allows {count_consumers(chosen)}."
    return f"{found}\nRaise the quota for faster imports: {QUOTA_URL} (docs/quickstart-aws.md)."
