"""Prices of imports, of reads, and of an idle and a busy month.

`make pages PAGES=costs` writes the generated sections of `docs/limits-and-prices.md`.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from bench.call_counts import PARTS, find_constant, find_slope, run_shape
from bench.function_calls import list_failure_metrics, list_import_metrics, measure_calls
from bench.idle import POLL_SECONDS, POLLERS, RETENTION_SECONDS, SWEEP_SECONDS, count_idle
from bench.measured_functions import LAMBDA_BYTES, Invocation, Metric
from bench.pace import Pace
from bench.prices import (
    ALARM_METRIC,
    API_REQUEST,
    DYNAMODB_READ_UNIT,
    DYNAMODB_WRITE_UNIT,
    EMAIL,
    EVENT,
    GB,
    INTERNET_GB,
    KMS_KEY,
    KMS_REQUEST,
    LAMBDA_GB_SECOND,
    LAMBDA_X86_GB_SECOND,
    LOG_BYTE,
    MEMORY,
    METRIC_MONTH,
    MILLION,
    MONTH,
    NOTIFICATION,
    RATES,
    REGION_GB,
    S3_READ,
    S3_STORAGE,
    S3_WRITE,
    SECRET,
    TRACE,
    Bill,
    Rate,
    bill_functions,
    bill_messages,
    bill_requests,
    format_price,
)
from bench.report import format_table
from bench.scale import find_counts, format_time, run_all
from bench.servers import ROOT
from modelhaul.domain.models import Source
from modelhaul.transfer.settings import choose_part_size
from modelhaul_cli.follower import INITIAL_POLL_INTERVAL, MAX_POLL_INTERVAL, POLL_BACKOFF
from tests.template.transformed import read_template

PAGE = ROOT / "docs" / "limits-and-prices.md"
START = "\n## Prices\n"
"""The rest of the page is generated."""

READS = 1_000  # requests of Hub clients, half of them HEAD and half GET
SUBMIT_SECONDS = 1.0  # of a submission, which waits for the source
REQUEST_SECONDS = 0.05  # of other requests
EVENT_SECONDS = 0.2  # of publish_ends, and of accept_archive for an object that is not imported
SAMPLED = 0.05  # of the requests that come in the same second, all but the first: the default rule of X-Ray
KEPT_DAYS = 7  # of the parts of a failed import
STARTED_FUNCTIONS = 3  # of an import, besides those of its steps: submit_huggingface, read_catalog, publish_ends
_SMALL_FILES = 10_000
_BUSY = {Source.HUGGINGFACE: 700, Source.GITHUB: 200, Source.LOCAL: 100}
_BUSY_FAILURES = 20
_BUSY_FILES = 50_000  # that Hub clients download
_ENTRY_SECONDS = 0.2  # of the function that publishes an entry of the audit
_LISTING_SECONDS = 2.0  # of the list of 10,000 models
_COLUMNS = {
    "Lambda": ("Lambda",),
    "API Gateway": ("API Gateway",),
    "DynamoDB": ("DynamoDB",),
    "S3": ("S3",),
    "SQS, event, email": ("SQS", "EventBridge", "SNS"),
    "Logs": ("CloudWatch Logs",),
    "Traces": ("X-Ray",),
}
QUOTES = {
    "README.md": (
        (
            "idle: about {idle} a month, and about {monitoring} for monitoring, which can be turned off; {import} to "
            "import 10 GB, {reads} for 500 downloaded files"
        ),
    ),
    "template.yaml": (
        "Leave empty to create a key, which costs {key} per month",
        (
            "Whether to create the dashboard, and the alarms if NotificationEmail or AlarmTopicArn is set. They cost "
            "about {monitoring} per month."
        ),
    ),
    "docs/parameters.md": (
        "the stack creates a key, which costs {key} per month",
        "`off` removes the [dashboard and the alarms](monitoring.md), which cost about {monitoring} per month",
    ),
    "docs/console.md": (
        "An update of the widget costs about {widget}",
        (
            "A dashboard that is open for an hour costs {widget_minutes} with an auto-refresh of one minute, and "
            "{widget_seconds} with ten seconds."
        ),
    ),
    "docs/quickstart-aws.md": ("Until you remove it, the stack costs about {default} a month",),
    "docs/audit.md": ("An entry costs about {entry}", "one metric more, which costs {alarm_metric} per month"),
    "docs/retention.md": ("a run reads only the table of follows: 30 invocations, or {retention}, a month",),
    "docs/usage.md": ("2,500 read units and two seconds of a function with 512 MB, or {listing}",),
    "docs/signatures.md": ("{key} per month for a key, and at most {signature} for each signature",),
}
"""Sentences of other files with prices."""


@dataclass(frozen=True, slots=True)
class Import:
    """`bill` has everything but custom metrics. `metrics` has those of an import that is alone in its hour."""

    title: str
    seconds: float
    polls: int
    bill: Bill
    metrics: Bill

    @property
    def price(self) -> float:
        return (self.bill + self.metrics).price()


def read_concurrency() -> int:
    """Return the default of TransferConcurrency."""
    return int(read_template()["Parameters"]["TransferConcurrency"]["Default"])


def count_polls(seconds: float) -> int:
    """Return the requests of the command line while it follows an import."""
    polls, waited, interval = 1, 0.0, INITIAL_POLL_INTERVAL
    while waited < seconds:
        waited += interval
        polls += 1
        interval = min(interval * POLL_BACKOFF, MAX_POLL_INTERVAL)
    return polls


def bill_invocation(invocation: Invocation, seconds: float, *, traces: float = 1) -> Bill:
    """Return the bill of an invocation of a warm function with its requests, log lines and trace."""
    observed = Bill({LOG_BYTE: LAMBDA_BYTES + invocation.log_bytes, TRACE: traces})
    return bill_functions(1, seconds * MEMORY) + bill_requests(invocation.calls) + observed


def bill_metrics(hours: Mapping[Metric, float]) -> Bill:
    return Bill({METRIC_MONTH: sum(min(count, MONTH) for count in hours.values()) / MONTH})


@cache
def bill_import_metrics() -> Bill:
    return bill_metrics(dict.fromkeys(list_import_metrics(Source.HUGGINGFACE), 1))


def _count_log_bytes(shape: str) -> dict[int, dict[str, float]]:
    """Return the bytes of the functions' own log lines, by size."""
    imports = run_shape(shape)
    return {size: {"bytes": sum(i.log_bytes for i in counted.invocations)} for size, counted in imports.items()}


def _find_log_bytes(shape: str, number: float) -> float:
    logged = _count_log_bytes(shape)
    return find_constant(logged, "bytes") + find_slope(logged, "bytes") * number


def _add(*counts: Mapping[str, float]) -> dict[str, float]:
    return {
        name: sum(each.get(name, 0) for each in counts) for name in dict.fromkeys(n for each in counts for n in each)
    }


def _find_part_counts(parts: float) -> dict[str, float]:
    """Return what `parts` more parts of a large file add."""
    with_parts, without = find_counts("parts", parts), find_counts("parts", 0)
    return {name: with_parts[name] - without[name] for name in with_parts}


def price_import(title: str, *, large: int = 0, large_size: int = 0, small: int = 0) -> Import:
    """Return the price of an import from the Hub with the default parameters, followed by the command line."""
    if small:
        counts, log_bytes = find_counts("small files", small), _find_log_bytes("small files", small)
    else:
        more = large * (math.ceil(large_size / choose_part_size(large_size)) - PARTS)
        counts = _add(find_counts("large files", large), _find_part_counts(more))
        slope = find_slope(_count_log_bytes("parts"), "bytes")
        log_bytes = _find_log_bytes("large files", large) + more * slope
    *_, run = run_all(counts, large=large, large_size=large_size, small=small, concurrencies=(1, read_concurrency()))
    seconds = run.simulated.done
    polls = count_polls(seconds)
    steps = run.bill + Bill(
        {LOG_BYTE: log_bytes + (run.simulated.functions + 1) * LAMBDA_BYTES, TRACE: run.simulated.functions + 1}
    )
    # The requests and log lines of the submission are among those of the steps.
    submission = Bill({API_REQUEST: 1}) + bill_functions(1, SUBMIT_SECONDS * MEMORY)
    starts = bill_functions(0, STARTED_FUNCTIONS * Pace().cold_start * MEMORY)
    polling = (bill_invocation(measure_calls().read_task, REQUEST_SECONDS) + Bill({API_REQUEST: 1})) * polls
    end = bill_invocation(measure_calls().publish_end, EVENT_SECONDS) + Bill({EMAIL: 1, NOTIFICATION: 1})
    hours = math.ceil(seconds / 3600)
    return Import(title, seconds, polls, steps + submission + starts + polling + end, bill_import_metrics() * hours)


@cache
def list_imports() -> tuple[Import, ...]:
    return (
        price_import("10 GB in 4 files", large=4, large_size=2_500_000_000),
        price_import("40 GB in one file", large=1, large_size=40 * GB),
        price_import("700 GB in 163 files", large=163, large_size=700 * GB // 163),
        price_import(f"{_SMALL_FILES:,} small files", small=_SMALL_FILES),
    )


def bill_reads() -> Bill:
    """Return the bill of READS requests that come at once, without the authorizer."""
    calls = measure_calls()
    pair = sum(
        (
            bill_invocation(call, REQUEST_SECONDS, traces=SAMPLED) + Bill({API_REQUEST: 1})
            for call in (calls.head, calls.get)
        ),
        Bill({S3_READ: 1}),
    )
    return pair * (READS / 2)


def bill_authorizer() -> Bill:
    """Return the bill of an invocation of the authorizer, without its trace, which is that of the request."""
    return bill_invocation(measure_calls().authorize, REQUEST_SECONDS, traces=0)


def bill_signature() -> Bill:
    """Return the bill of a signature by a function that starts cold, and so reads the public key."""
    return Bill({KMS_REQUEST: 2, S3_WRITE: 1})


def bill_widget() -> Bill:
    """Return the bill of an update of the widget that shows the most imports and models. Time is assumed."""
    return bill_functions(1, 0.2 * MEMORY) + Bill({DYNAMODB_READ_UNIT: 150, TRACE: 1})


def bill_ignored_objects(count: int) -> Bill:
    """Return the bill of objects that are not imported. Each of them and its outcome is an event."""
    invocation = bill_invocation(measure_calls().ignore_object, EVENT_SECONDS, traces=SAMPLED)
    return (invocation + bill_messages(1) + Bill({EVENT: 2})) * count


def bill_busy_metrics() -> Bill:
    """Each import is in an hour of its own as far as the month has hours."""
    hours: Counter[Metric] = Counter()
    for source, imports in _BUSY.items():
        hours.update(dict.fromkeys(list_import_metrics(source), imports))
    hours.update(dict.fromkeys(list_failure_metrics(Source.HUGGINGFACE), _BUSY_FAILURES))
    return bill_metrics(hours)


@cache
def list_busy_bills() -> dict[str, Bill]:
    """Return the bills of a busy month by what they are for."""
    idle = count_idle()
    imports = sum(_BUSY.values())
    return {
        f"{imports:,} imports of 10 GB": list_imports()[0].bill * imports,
        f"{_BUSY_FAILURES} failed imports, at the same price": list_imports()[0].bill * _BUSY_FAILURES,
        f"{_BUSY_FILES:,} files that Hub clients download": bill_reads() * (2 * _BUSY_FILES / READS)
        + bill_authorizer() * (MONTH * 60),
        "Custom metrics": bill_busy_metrics(),
        "Polling of the queues, and the scheduled functions": idle.stack,
        "Dashboard": idle.dashboard,
        "Alarms": idle.alarm,
    }


def bill_entry() -> Bill:
    """Return the bill of an entry of the audit: a write in a transaction, those of its five indexes, and its event."""
    return Bill({DYNAMODB_WRITE_UNIT: 2 + 5, EVENT: 1}) + bill_functions(1, _ENTRY_SECONDS * MEMORY)


def bill_listing() -> Bill:
    """Return the bill of the quota's list of 10,000 models, for which DynamoDB reads records of 2 KB."""
    return Bill({DYNAMODB_READ_UNIT: 10_000 * 2_000 / 8192}) + bill_functions(0, _LISTING_SECONDS * MEMORY)


def sum_bills(bills: Iterable[Bill]) -> Bill:
    return sum(bills, Bill())


def find_figures() -> dict[str, str]:
    """Return the prices that other files repeat."""
    idle, widget = count_idle(), bill_widget().price()
    return {
        "idle": format_price(idle.stack.price()),
        "monitoring": format_price(idle.monitoring.price()),
        # A deployment with the default parameters has no alarms.
        "default": format_price((idle.stack + idle.dashboard).price()),
        "import": format_price(list_imports()[0].price),
        "reads": format_price(bill_reads().price()),
        "widget": format_price(widget),
        "widget_minutes": format_price(60 * widget),
        "widget_seconds": format_price(360 * widget),
        "key": format_price(KMS_KEY.dollars),
        "signature": format_price(bill_signature().price()),
        "alarm_metric": format_price(ALARM_METRIC.dollars),
        "entry": format_price(bill_entry().price()),
        "listing": format_price(bill_listing().price()),
        "retention": format_price(idle.retention.price()),
    }


def render_quote(path: str) -> str:
    """Return a file with the prices in its sentences replaced. Raises ValueError if it does not have a sentence."""
    text = (ROOT / path).read_text()
    for quote in QUOTES[path]:
        text = _replace_figures(text, quote, path)
    return text


def _replace_figures(text: str, quote: str, path: str) -> str:
    words = [_match_words(part) for part in re.split(r"\{\w+\}", quote)]
    found = re.search(r"(\$[\d.,]*\d)".join(words), text)
    if found is None:
        raise ValueError(f"{path} does not contain {quote!r}")
    figures = find_figures()
    names = re.findall(r"\{(\w+)\}", quote)
    for number in range(len(names), 0, -1):
        start, end = found.span(number)
        text = text[:start] + figures[names[number - 1]] + text[end:]
    return text


def _match_words(text: str) -> str:
    """Return a regular expression for the text, in which any white space stands for a space."""
    return re.sub(r"(\\ )+", r"\\s+", re.escape(text))


def _describe_rate(rate: Rate) -> list[str]:
    dollars = f"{rate.dollars:.10f}".rstrip("0")
    dollars += "0" * (2 - len(dollars.partition(".")[2]))
    unit = _format_quantity(rate.quantity, rate.unit).removeprefix("1 ")
    free = _format_quantity(rate.free, rate.unit) if rate.free else "none"
    return [f"[{rate.service}]({rate.page}), {rate.item}", f"${dollars} per {unit}", free]


def _format_quantity(number: int, unit: str) -> str:
    if unit == "byte":
        return _format_quantity(number // GB, "GB")
    many = unit if number == 1 or unit == "GB" else f"{unit}s"
    return f"{number // MILLION} million {many}" if number and number % MILLION == 0 else f"{number:,} {many}"


def _describe_imports() -> str:
    heads = ["Import", *_COLUMNS, "Sum", "Custom metrics, if alone", "Price", "Time"]
    rows = [
        [
            each.title,
            *(f"${each.bill.price(*services):.4f}" for services in _COLUMNS.values()),
            f"${each.bill.price():.4f}",
            f"${each.metrics.price():.4f}",
            f"**{format_price(each.price)}**",
            format_time(each.seconds),
        ]
        for each in list_imports()
    ]
    return format_table(heads, rows)


def _describe_idle() -> str:
    idle = count_idle()
    free = "" if idle.is_dashboard_free else ", so that it is not among the free ones of the account"
    rows = [
        [
            (
                f"Polling of {idle.queues} queues: {idle.polls / MILLION:.1f} million requests to SQS, from {POLLERS} "
                f"connections to each queue, every {POLL_SECONDS} s"
            ),
            format_price(idle.polling.price()),
        ],
        [
            (
                f"The sweep every {idle.sweep_minutes:g} minutes: {idle.sweeps:,.0f} invocations with their log lines "
                f"and traces, {SWEEP_SECONDS:g} s each (assumed)"
            ),
            format_price(idle.sweep.price()),
        ],
        [
            (
                f"The daily run of retention without rules and follows: {idle.retentions:.0f} invocations, "
                f"{RETENTION_SECONDS:g} s each (assumed)"
            ),
            format_price(idle.retention.price()),
        ],
        ["**Sum with `Monitoring=off`**", f"**{format_price(idle.stack.price())}**"],
        [
            f"{idle.dashboards} dashboard with {idle.dashboard_metrics} metrics{free}",
            format_price(idle.dashboard.price()),
        ],
        [
            f"{idle.alarms} alarms with {idle.alarm_metrics} metrics, with `NotificationEmail`",
            format_price(idle.alarm.price()),
        ],
        ["**Sum**", f"**{format_price((idle.stack + idle.monitoring).price())}**"],
        [
            "Sum after the free tiers of an account without other resources",
            format_price((idle.stack + idle.monitoring).deduct_free().price()),
        ],
    ]
    return format_table(["Resource", "Price of a month"], rows)


def _describe_reads() -> str:
    bill = bill_reads()
    rows = [[name, f"${bill.price(*services):.4f}"] for name, services in _COLUMNS.items() if bill.price(*services)]
    return format_table(["Part", "Price"], [*rows, ["**Sum**", f"**{format_price(bill.price())}**"]])


def _describe_busy_month() -> str:
    rows = [[name, format_price(bill.price())] for name, bill in list_busy_bills().items()]
    bill = sum_bills(list_busy_bills().values())
    rows += [
        ["**Sum**", f"**{format_price(bill.price())}**"],
        ["Sum after the free tiers of an account without other resources", format_price(bill.deduct_free().price())],
    ]
    return format_table(["Part", "Price"], rows)


def describe_prices() -> str:
    """Return the generated sections in Markdown."""
    first, calls = list_imports()[0], measure_calls()
    metrics = len(list_import_metrics(Source.HUGGINGFACE))
    seconds_of_part = choose_part_size(40 * GB) / Pace().rate
    progress = bill_requests(
        {name: count for name, count in _find_part_counts(3600 / seconds_of_part).items() if name.endswith("units")}
    ).price()
    kept = S3_STORAGE.unit_price * KEPT_DAYS * 24 / MONTH
    authorizer = bill_authorizer().price()
    read_bytes = calls.head.log_bytes + LAMBDA_BYTES
    ignored = bill_ignored_objects(MILLION)
    signature = bill_signature()
    free = (
        "Three dashboards of up to 50 metrics are free in an account. The sums do not deduct this, because other "
        "dashboards may use it."
        if count_idle().is_dashboard_free
        else ""
    )
    x86 = LAMBDA_X86_GB_SECOND.unit_price / LAMBDA_GB_SECOND.unit_price - 1
    return f"""\
`make pages PAGES=costs` computes all figures below this line, from one table of prices (`bench/prices.py`), the
template, and the requests, log lines and metrics of imports and reads that it runs. The prices are the public ones of
us-east-1, with functions on arm64; on x86_64, their duration costs {x86:.0%} more. **Free tiers are not deducted**
except where a table says so: [the last table](#unit-prices) names them. The figures were not compared with a bill. A
month has {MONTH} hours.

They do not include:

- the storage of models, archives, tables, their point-in-time recovery, and logs;
- data transfer out of S3 and API Gateway: about ${INTERNET_GB.unit_price:.2f} per GB to the internet and about
  ${REGION_GB.unit_price:.2f} per GB to other Regions. Transfer into S3 and within the Region is free;
- retries, waits for a source, and inspections that continue in another function;
- signatures, which are off by default ([below](#signing-costs));
- secrets with tokens of the sources: ${SECRET.dollars:.2f} a month each, and their few requests;
- what the console requests while somebody looks at it: queries of CloudWatch Logs Insights and X-Ray, and invocations
  of a custom widget;
- services that the account adds, such as CloudTrail data events, access logs, `KmsKeyArn`, AWS Config and
  security scanners;
- the bucket in which SAM stores deployments, AWS Support, and taxes.

## Idle costs

{_describe_idle()}

Lambda polls with {POLLERS} connections also while a queue is empty, because the mappings limit the concurrency
([documentation](https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html)). Lambda's reads of the table's
stream, schedules, lifecycle rules and the expiry of records are free. {free}

With `Signing=KMS` and without `SigningKeyArn`, the [key](signatures.md) of the stack costs
{format_price(KMS_KEY.dollars)} more. It is kept, and costs the same, until somebody schedules its deletion.

## Import costs

An import from the Hub that the command line starts and follows, with an email at its end, and
`TransferConcurrency={read_concurrency()}`:

{_describe_imports()}

- Imports from GitHub send the same requests to AWS. An archive adds its upload (one write request of S3 for each
  part), two events of S3 and one invocation.
- Time and functions are simulated ([scale.md](scale.md)), with the requests of [calls.md](calls.md). The time of a
  function includes its cold start. The table assumes that all functions start cold.
- A submission takes {SUBMIT_SECONDS:g} s, another request {REQUEST_SECONDS:g} s and the publication of an event
  {EVENT_SECONDS:g} s (assumed).
- API Gateway and Lambda include the requests that follow the import: every {MAX_POLL_INTERVAL:g} s, which are
  {first.polls} requests in {format_time(first.seconds)}. Somebody who does not follow it saves them.
- Logs are the bytes of the lines that the functions wrote in such imports, with `LogLevel=INFO`, those of Lambda itself
  ({LAMBDA_BYTES} bytes for each invocation) and those of the metrics.
- Traces are at most one for each invocation. X-Ray records fewer if several start in the same second.
- From the Hub, many small files take longer because of its rate limit: [scale.md](scale.md). Waiting costs only the
  requests that follow the import.
- **Custom metrics** are charged for each hour in which they are emitted: ${METRIC_MONTH.dollars:.2f} a month each, or
  ${METRIC_MONTH.dollars / MONTH:.5f} an hour. An import emits {metrics} of them. Alone in its hour, it costs
  {format_price(first.metrics.price())} more; several imports in the same hour share this price. If imports
  end in every hour of a month, their metrics cost {format_price(metrics * METRIC_MONTH.dollars)}.

The records of the progress of a large file cost {format_price(progress)} an hour while it is transferred at
{Pace().rate / 1e6:.0f} MB/s, and are part of DynamoDB above.

The parts of a large file that a failed or cancelled import has stored cost {format_price(kept)} per GB until they
expire after {KEPT_DAYS} days, or until the next import of the content continues them. To delete them earlier, abort the
unfinished uploads below `staging/TASK_ID/` of the ended import in the models bucket, unless another import has
continued them: such uploads keep the keys of the ended import.

A million objects in the incoming bucket that are [not imported](sources.md#zip-archives) cost about
{format_price(ignored.price())}, of which {format_price(ignored.price("S3"))} are for writing their outcomes.

## Signing costs

With `Signing=KMS`, a [signature](signatures.md) costs at most {format_price(signature.price())}:
{format_price(KMS_REQUEST.unit_price)} for each of two requests to KMS, and {format_price(S3_WRITE.unit_price)} for a
write request of S3. The second request reads the public key, once for each cold start of a function.

## Read costs

{READS:,} requests to the Hub read API that come at once. They download {READS // 2} files: a client sends HEAD and GET
for each, and GET of S3.

{_describe_reads()}

- A request takes {REQUEST_SECONDS:g} s (assumed), reads half a unit of DynamoDB, and logs {read_bytes / 1000:.1f} KB:
  three lines of Lambda.
- X-Ray traces one request each second and {SAMPLED:.0%} of the others. If requests come one by one, their traces cost
  {format_price(READS * TRACE.unit_price)} instead.
- The authorizer runs once a minute for each key that is in use. A thousand of its runs cost
  {format_price(1000 * authorizer)}, and a key that is always in use costs {format_price(60 * MONTH * authorizer)} a
  month.
- A miss adds one log line. Hits are not logged.
- The metrics `HubErrors` and `HubAccessDenied` cost up to ${METRIC_MONTH.dollars:.2f} each for a month in which they
  are counted in every hour.
- The last-read day costs one write for each model, day and function instance, and the first read of a model reads its
  manifest.
- Nothing is charged while nobody reads.

## Costs of a busy month

{sum(_BUSY.values()):,} imports ({_BUSY[Source.HUGGINGFACE]} from the Hub, {_BUSY[Source.GITHUB]} from GitHub,
{_BUSY[Source.LOCAL]} from archives, all at the price of an import from the Hub), {_BUSY_FAILURES} failed imports, and
{_BUSY_FILES:,} files that Hub clients with one key download:

{_describe_busy_month()}

Each import is followed by the command line. For the metrics, each import is in an hour of its own as far as the month
has hours. Cancelled imports, waits, recoveries of the sweep and errors of Hub clients are not included: each adds a
metric.

## Unit prices

Public prices of us-east-1 as of November 2026:

{format_table(["Price", "Dollars", "Free tier of each month"], [_describe_rate(rate) for rate in RATES])}
"""


def render_page() -> str:
    """Return the page with its generated sections replaced."""
    written, _, _ = PAGE.read_text().partition(START)
    return written + START + "\n" + _wrap(describe_prices())


def _wrap(text: str) -> str:
    """Break the lines of paragraphs and list items at 120 characters."""
    return "\n\n".join(_wrap_block(block) for block in text.strip().split("\n\n")) + "\n"


def _wrap_block(block: str) -> str:
    if block.startswith(("|", "#")):
        return block
    items = re.split(r"\n(?=- )", block)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            120,
            subsequent_indent="  " * item.startswith("- "),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
