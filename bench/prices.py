"""Public prices of us-east-1 in US dollars, as of November 2026, without taxes and free tiers.

They were not compared with a bill. Check them against the linked pages before you rely on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MILLION = 1_000_000

# https://aws.amazon.com/lambda/pricing/, arm64
LAMBDA_GB_SECOND = 0.0000133334
LAMBDA_REQUEST = 0.20 / MILLION
# https://aws.amazon.com/s3/pricing/, S3 Standard: PUT, COPY, POST, LIST; GET and all others. Deletions are free.
S3_WRITE = 0.005 / 1000
S3_READ = 0.0004 / 1000
# https://aws.amazon.com/dynamodb/pricing/on-demand/
DYNAMODB_WRITE_UNIT = 0.625 / MILLION
DYNAMODB_READ_UNIT = 0.125 / MILLION
# https://aws.amazon.com/sqs/pricing/, standard queues
SQS_REQUEST = 0.40 / MILLION
SQS_REQUESTS = 3  # for each message: send, receive, delete
# https://aws.amazon.com/api-gateway/pricing/, REST APIs
API_REQUEST = 3.50 / MILLION
# https://aws.amazon.com/s3/pricing/, S3 Standard; a GB is 2**30 bytes
S3_GB_MONTH = 0.023
# https://aws.amazon.com/fargate/pricing/, Linux on arm64
FARGATE_VCPU_HOUR = 0.03238
FARGATE_GB_HOUR = 0.00356

MEMORY = 512  # MB of a function
PUBLISHER_MEMORY = 1769  # MB of publish_models

_S3_READS = {"s3 GetObject", "s3 HeadObject"}
_S3_FREE = {"s3 DeleteObjects", "s3 AbortMultipartUpload"}


@dataclass(frozen=True, slots=True)
class Price:
    functions: float
    s3: float
    dynamodb: float
    sqs: float

    @property
    def total(self) -> float:
        return self.functions + self.s3 + self.dynamodb + self.sqs


def price_import(counts: Mapping[str, float], *, functions: int, megabyte_seconds: float) -> Price:
    """Return the price of an import from its counts, as returned by `bench.call_counts.count_shape`.

    `megabyte_seconds`: the sum of the functions' time, multiplied by their memory.
    """
    s3 = {name: count for name, count in counts.items() if name.startswith("s3 ") and name not in _S3_FREE}
    return Price(
        functions=megabyte_seconds / 1024 * LAMBDA_GB_SECOND + functions * LAMBDA_REQUEST,
        s3=sum(count * (S3_READ if name in _S3_READS else S3_WRITE) for name, count in s3.items()),
        dynamodb=counts["write units"] * DYNAMODB_WRITE_UNIT + counts["read units"] * DYNAMODB_READ_UNIT,
        sqs=counts["queue messages"] * SQS_REQUESTS * SQS_REQUEST,
    )


def price_server(hours: float, *, vcpus: int, memory_gb: int) -> float:
    return hours * (vcpus * FARGATE_VCPU_HOUR + memory_gb * FARGATE_GB_HOUR)
