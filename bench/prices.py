"""Public prices of us-east-1 in US dollars, as of November 2026, without taxes and free tiers.

They were not compared with a bill. Check them against their pages before you rely on them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MILLION = 1_000_000
GB = 1_000_000_000
MONTH = 730  # hours, as in the pricing calculator of AWS
MEMORY = 512  # MB of a function
PUBLISHER_MEMORY = 1769  # MB of publish_models


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of `quantity` units of `item`, in dollars, on `page`. `free`: units that are free in each month, not
    only for new accounts.
    """

    service: str
    item: str
    dollars: float
    quantity: int
    unit: str
    page: str
    free: int = 0

    @property
    def unit_price(self) -> float:
        return self.dollars / self.quantity


_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_S3 = "https://aws.amazon.com/s3/pricing/"
_DYNAMODB = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_CLOUDWATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_SNS = "https://aws.amazon.com/sns/pricing/"
_FARGATE = "https://aws.amazon.com/fargate/pricing/"
_TRANSFER = "https://aws.amazon.com/ec2/pricing/on-demand/"
_KMS = "https://aws.amazon.com/kms/pricing/"

# The time of a function includes its initialization (https://aws.amazon.com/blogs/compute/
# aws-lambda-standardizes-billing-for-init-phase/).
LAMBDA_GB_SECOND = Rate("Lambda", "duration, arm64", 0.0000133334, 1, "GB-second", _LAMBDA, 400_000)
LAMBDA_X86_GB_SECOND = Rate("Lambda", "duration, x86_64", 0.0000166667, 1, "GB-second", _LAMBDA, 400_000)
LAMBDA_REQUEST = Rate("Lambda", "requests", 0.20, MILLION, "request", _LAMBDA, MILLION)
# Deletions and aborted uploads are free.
S3_WRITE = Rate("S3", "PUT, COPY, POST and LIST requests", 0.005, 1000, "request", _S3)
S3_READ = Rate("S3", "GET and other requests", 0.0004, 1000, "request", _S3)
S3_STORAGE = Rate("S3", "storage, Standard", 0.023, 1, "GB-month", _S3)
DYNAMODB_WRITE_UNIT = Rate("DynamoDB", "write request units", 0.625, MILLION, "unit", _DYNAMODB)
DYNAMODB_READ_UNIT = Rate("DynamoDB", "read request units", 0.125, MILLION, "unit", _DYNAMODB)
SQS_REQUEST = Rate(
    "SQS", "requests, standard queues", 0.40, MILLION, "request", "https://aws.amazon.com/sqs/pricing/", MILLION
)
API_REQUEST = Rate(
    "API Gateway", "requests, REST API", 3.50, MILLION, "request", "https://aws.amazon.com/api-gateway/pricing/"
)
# Custom events, and those of S3, which are opt-in. Other events of AWS services and schedules are free.
EVENT = Rate(
    "EventBridge", "custom events and S3 events", 1.00, MILLION, "event", "https://aws.amazon.com/eventbridge/pricing/"
)
METRIC_MONTH = Rate("CloudWatch metrics", "custom metrics", 0.30, 1, "metric-month", _CLOUDWATCH, 10)
LOG_BYTE = Rate("CloudWatch Logs", "ingestion", 0.50, GB, "byte", _CLOUDWATCH, 5 * GB)
# Three dashboards of up to 50 metrics each are free.
DASHBOARD = Rate("CloudWatch dashboards", "dashboards", 3.00, 1, "dashboard-month", _CLOUDWATCH)
ALARM_METRIC = Rate("CloudWatch alarms", "metrics of alarms", 0.10, 1, "metric-month", _CLOUDWATCH, 10)
TRACE = Rate("X-Ray", "recorded traces", 5.00, MILLION, "trace", "https://aws.amazon.com/xray/pricing/", 100_000)
EMAIL = Rate("SNS", "emails", 2.00, 100_000, "email", _SNS, 1_000)
NOTIFICATION = Rate("SNS", "requests, standard topics", 0.50, MILLION, "request", _SNS, MILLION)
KMS_KEY = Rate("KMS", "customer managed keys", 1.00, 1, "key-month", _KMS)
# Sign and GetPublicKey. The free tier of other requests does not include them.
KMS_REQUEST = Rate("KMS", "requests, keys of elliptic curves", 0.15, 10_000, "request", _KMS)
SECRET = Rate("Secrets Manager", "secrets", 0.40, 1, "secret-month", "https://aws.amazon.com/secrets-manager/pricing/")
INTERNET_GB = Rate("Data transfer", "to the internet", 0.09, 1, "GB", _TRANSFER, 100)
REGION_GB = Rate("Data transfer", "to other Regions", 0.02, 1, "GB", _TRANSFER)
FARGATE_VCPU_HOUR = Rate("Fargate", "vCPU, Linux on arm64", 0.03238, 1, "hour", _FARGATE)
FARGATE_GB_HOUR = Rate("Fargate", "memory, Linux on arm64", 0.00356, 1, "GB-hour", _FARGATE)

RATES = tuple(value for value in globals().values() if isinstance(value, Rate))

SQS_REQUESTS = 3  # for each message: send, receive, delete
_S3_READS = {"s3 GetObject", "s3 HeadObject"}
_S3_FREE = {"s3 DeleteObjects", "s3 DeleteObject", "s3 AbortMultipartUpload"}


@dataclass(frozen=True, slots=True)
class Bill:
    """Quantities of what AWS charges for."""

    quantities: Mapping[Rate, float] = field(default_factory=dict)

    def __add__(self, other: "Bill") -> "Bill":
        rates = {**self.quantities, **other.quantities}
        return Bill({rate: self.quantities.get(rate, 0) + other.quantities.get(rate, 0) for rate in rates})

    def __mul__(self, factor: float) -> "Bill":
        return Bill({rate: quantity * factor for rate, quantity in self.quantities.items()})

    def deduct_free(self) -> "Bill":
        """Return the bill of an account that uses nothing else."""
        return Bill({rate: max(0, quantity - rate.free) for rate, quantity in self.quantities.items()})

    def price(self, *services: str) -> float:
        """Return the price of these services, or of all."""
        return sum(
            rate.unit_price * quantity
            for rate, quantity in self.quantities.items()
            if not services or rate.service in services
        )


def bill_requests(calls: Mapping[str, float]) -> Bill:
    """Return the bill of AWS requests, by `service Operation`, and of DynamoDB's `read units` and `write units`.

    Requests to SQS are not included: `bill_messages` has those of a message.
    """
    s3 = {name: count for name, count in calls.items() if name.startswith("s3 ") and name not in _S3_FREE}
    reads = sum(count for name, count in s3.items() if name in _S3_READS)
    return Bill(
        {
            S3_WRITE: sum(s3.values()) - reads,
            S3_READ: reads,
            DYNAMODB_WRITE_UNIT: calls.get("write units", 0),
            DYNAMODB_READ_UNIT: calls.get("read units", 0),
            EVENT: calls.get("events PutEvents", 0),
        }
    )


def bill_messages(count: float) -> Bill:
    return Bill({SQS_REQUEST: count * SQS_REQUESTS})


def bill_functions(invocations: float, megabyte_seconds: float) -> Bill:
    """`megabyte_seconds`: the sum of the time of the functions, multiplied by their memory."""
    return Bill({LAMBDA_GB_SECOND: megabyte_seconds / 1024, LAMBDA_REQUEST: invocations})


def bill_import(counts: Mapping[str, float], *, functions: int, megabyte_seconds: float) -> Bill:
    """Return the bill of the steps of an import from its counts, as returned by `bench.call_counts.count_shape`."""
    return bill_functions(functions, megabyte_seconds) + bill_requests(counts) + bill_messages(counts["queue messages"])


def price_server(hours: float, *, vcpus: int, memory_gb: int) -> float:
    return hours * (vcpus * FARGATE_VCPU_HOUR.unit_price + memory_gb * FARGATE_GB_HOUR.unit_price)


def format_price(dollars: float) -> str:
    """Return a price with two significant digits, or with cents from one dollar on."""
    if dollars >= 1 or not dollars:
        return f"${dollars:,.2f}"
    rounded = float(f"{dollars:.1e}")
    return f"${rounded:.{1 - math.floor(math.log10(rounded))}f}"
