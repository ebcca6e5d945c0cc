"""Time and price of three large imports by the number of functions. Writes `docs/scale.md` and its plot.

`make pages PAGES="scale scale-plot"`. The values are simulated, so that the page is the same on every machine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache

from bench.call_counts import PARTS, count_shape, find_constant, find_slope, list_names
from bench.pace import Pace
from bench.prices import MEMORY, MONTH, PUBLISHER_MEMORY, Bill, bill_import, price_server
from bench.scale_plot import Panel, draw
from bench.simulated_import import SimulatedImport, simulate_import
from modelhaul.adapters.s3 import COPY_PART_SIZE
from modelhaul.adapters.s3_client import PARALLEL_COPIES
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.settings import StreamSettings, choose_part_size

CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
_DEFAULT = 16  # TransferConcurrency in the template
_SHARDS = 163
_BYTES = 700_000_000_000
_FILES = 50_000
_FILE = 40_000_000_000
_VCPUS, _MEMORY = 4, 8
_SERVER_RATE = 1.2e9  # bytes per second, the rate of 16 functions
_ASSUMPTIONS = {
    "rate": "Network of one function, bytes/s",
    "hash_rate": "SHA-256 in a function that does nothing else, bytes/s",
    "busy_hash_rate": "SHA-256 in a function that downloads and stores parts, bytes/s",
    "limit": "Timeout of a function, s",
    "cold_start": "Cold start, s",
    "delivery": "Delivery of a message to a function, s",
    "first_functions": "Functions that Lambda starts at once for a queue",
    "more_functions": "Functions that it adds per second",
    "source_response": "First byte of a file from the source, s",
    "put": "S3 PutObject, s",
    "copy": "S3 CopyObject of a small file, s",
    "copy_rate": "Copy inside S3 by one request, bytes/s",
    "fetch_cpu": "CPU of a download request, s",
    "put_cpu": "CPU of a PutObject request, s",
    "copy_cpu": "CPU of a copy request, s",
    "check_cpu": "CPU to check a small file, s",
    "record_cpu": "CPU to read the record of a file, s",
    "publish_cpu": "CPU to check and publish the whole model, for each file, s",
    "other_s3": "Other S3 requests, s",
    "write_rate": "PutObject and CopyObject requests that S3 accepts for one prefix, per second",
    "database": "DynamoDB request, s",
    "partition_rate": "Write units of a DynamoDB partition, per second",
    "table_rate": "Write units of a new DynamoDB table, per second",
}
"""What each field of `Pace` is on the page."""


@dataclass(frozen=True, slots=True)
class Run:
    concurrency: int
    simulated: SimulatedImport
    bill: Bill


def find_counts(shape: str, number: float) -> dict[str, float]:
    """Return the counts of an import of `number` units of a shape, extrapolated from `docs/calls.md`."""
    counts = count_shape(shape)
    return {name: find_constant(counts, name) + find_slope(counts, name) * number for name in list_names(counts)}


def run_all(
    counts: Mapping[str, float],
    *,
    large: int = 0,
    large_size: int = 0,
    small: int = 0,
    concurrencies: Sequence[int] = CONCURRENCY,
) -> list[Run]:
    """Return a run for each concurrency, of which the first is 1. `counts` are those of an import whose files have one
    function each.
    """
    runs: list[Run] = []
    for concurrency in concurrencies:
        simulated = simulate_import(concurrency, large=large, large_size=large_size, small=small)
        alone = runs[0].simulated if runs else simulated
        shared = {
            "queue messages": simulated.messages.total(),
            "read units": counts["read units"] + simulated.read_units - alone.read_units,
            "write units": counts["write units"] + simulated.write_units - alone.write_units,
        }
        bill = bill_import(
            {**counts, **shared}, functions=simulated.functions, megabyte_seconds=simulated.megabyte_seconds
        )
        runs.append(Run(concurrency, simulated, bill))
    return runs


def _describe_runs(runs: list[Run]) -> str:
    rows = [
        f"| {run.concurrency} | {format_time(s.planned)} | {format_time(s.verified - s.planned)} | "
        f"{format_time(s.done - s.verified)} | **{format_time(s.done)}** | {(s.done - s.verified) / s.done:.0%} | "
        f"{s.functions} | "
        f"{s.messages.total()} | ${run.bill.price('Lambda'):.3f} | **${run.bill.price():.3f}** |"
        for run in runs
        for s in [run.simulated]
    ]
    head = (
        "Functions | Planning | Transfer | Publication | Time | Publication / time | Invocations | Messages | "
        "Price of functions | Price"
    )
    return f"""\
| {head} |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{"\n".join(rows)}"""


def _describe_bill(bill: Bill) -> str:
    return (
        f"functions ${bill.price('Lambda'):.3f}, S3 requests ${bill.price('S3'):.3f}, "
        f"DynamoDB ${bill.price('DynamoDB'):.3f}, queues ${bill.price('SQS'):.4f}"
    )


def format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _describe_pace(pace: Pace) -> str:
    values = {field.name: getattr(pace, field.name) for field in fields(pace)}
    return "\n".join(f"| {_ASSUMPTIONS[name]} | {value:,.10g} |" for name, value in values.items())


def _find_default(runs: list[Run]) -> Run:
    return next(run for run in runs if run.concurrency == _DEFAULT)


def describe_scale(model: list[Run], repository: list[Run], file: list[Run]) -> str:
    """Return the page in Markdown."""
    one, best, shared = _find_default(model), _find_default(repository), _find_default(file)
    policy, settings, pace = TransferPolicy(), StreamSettings(), Pace()
    segment = settings.buffers * choose_part_size(_FILE)
    ratio = shared.bill.price("Lambda") / file[0].bill.price("Lambda")
    hours = _BYTES / _SERVER_RATE / 3600
    server = price_server(hours, vcpus=_VCPUS, memory_gb=_MEMORY)
    functions = one.bill.price("Lambda")
    always = price_server(MONTH, vcpus=_VCPUS, memory_gb=_MEMORY)
    return f"""\
# Scale

`make pages PAGES=scale` generates this page. The values are simulated, not measured. The real planner,
messages, steps, checks of files, claims of segments and sweep run in virtual time, with adapters that transfer no
bytes. The transfer of a large file is replaced by a loop that takes the same time, and claims and records the same
segments. Up to as many functions copy files to their published keys as transfer them. Prices are computed from the
requests in [calls.md](calls.md) and the time of the functions, with the public prices of us-east-1 (`bench/prices.py`
names their date and pages). They do not include logs, traces, metrics, the API and storage:
[limits-and-prices.md](limits-and-prices.md#import-costs) adds them.

The time ends when the task is DONE and the model can be read. The publisher then deletes the staged files, which the
time does not include ({format_time(best.simulated.cleaned - best.simulated.done)} for {_FILES:,} files).

![Time and price by the number of functions](scale.svg)

## Model of 700 GB in {_SHARDS} shards

{_describe_runs(model)}

Price with {_DEFAULT} functions: {_describe_bill(one.bill)}.
The transfer scales linearly while each function has several shards. Publication consists of copies inside S3. A
message is for {TransferPolicy().copy_bytes / 2**30:.0f} GiB, and a function has up to {PARALLEL_COPIES} copy requests
at once, of {COPY_PART_SIZE / 2**20:.0f} MiB each. The speed of these copies is the least certain assumption.

## One file of {_FILE / 1e9:.0f} GB

{_describe_runs(file)}

Price with {_DEFAULT} functions: {_describe_bill(shared.bill)}.
Up to {policy.file_functions} functions transfer the file together, so more functions do not change the time. Each of
them has a message. If fewer functions run at the same time, the last messages arrive when the file is stored, and their
functions end immediately.

A function downloads a segment of {segment / 2**20:.0f} MiB, and hashes it when all bytes before it are hashed. SHA-256
is sequential: at {pace.hash_rate / 1e9:g} GB/s, all functions together need at least
{format_time(_FILE / pace.hash_rate)}. While a function waits for the hash of the others, its time costs the same. The
functions therefore cost {ratio:.1f} times as much with {_DEFAULT} functions as with one.

## Repository of {_FILES:,} files of 2 kB

{_describe_runs(repository)}

Price with {_DEFAULT} functions: {_describe_bill(best.bill)}.
Two S3 requests for each file are most of the price. The parts that do not depend on the number of functions are the
listing (a page of 1,000 files per second) and the CPU time of the publisher, which reads the records of all files and
checks the model twice: before the copies, and when it writes the manifest. S3 accepts {Pace().write_rate:,.0f} copies
per second for one prefix, so that {_FILES:,} copies take at least {_FILES / Pace().write_rate:.0f} s. All records of a
task share one partition key of DynamoDB, which accepts {Pace().partition_rate:,.0f} write units per second. A group of
{TransferPolicy().group_files} files takes about 25 of them, so this is not a limit here.

The limit of a source may be lower: the Hub allows a free account 5,000 files in five minutes. From the Hub, {_FILES:,}
files therefore take 45 minutes, and their messages wait in the queue.

## Comparison with a server

If one Fargate task ({_VCPUS} vCPU, {_MEMORY} GB, arm64) transferred the 700 GB at {_SERVER_RATE / 1e9:g} GB/s, the rate
of {_DEFAULT} functions, it would run for {format_time(hours * 3600)} and cost ${server:.3f}. The functions cost
${functions:.3f}. Whether the network of one task reaches this rate was not measured. The requests that store
the parts cost the same in both cases. Publication costs Modelhaul one additional copy request for each
{COPY_PART_SIZE / 2**20:.0f} MiB.

A Fargate task for each import is therefore slightly cheaper, but it needs additional software to start, monitor and
resume it. A Fargate task that runs all the time costs ${always:.0f} a month. The price of the idle stack is in
[limits-and-prices.md](limits-and-prices.md#idle-costs).

## Assumptions

| Assumption | Value |
|---|---:|
{_describe_pace(Pace())}

Each shard has {PARTS} parts. There are no retries and no limits of the source. Functions have {MEMORY} MB of memory,
which gives them 0.29 vCPU; CPU times were measured on one core and divided by 0.29. Only publish_models has
{PUBLISHER_MEMORY:,} MB and one vCPU, and computes {PUBLISHER_MEMORY / MEMORY:.1f} times as fast. Limits of AWS are from
its documentation:
[S3](https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html), and
[partitions](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html) and
[new tables](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html) of DynamoDB.
Transactions do not conflict. To download and store parts at the full rate of its network takes a third of a function's
CPU; the rest can hash.
"""


def draw_scale(model: list[Run], repository: list[Run], file: list[Run]) -> str:
    lines = {"700 GB, 163 shards": model, "50,000 files": repository, "40 GB, one file": file}
    panels = [
        Panel(
            "minutes",
            "functions that move files",
            CONCURRENCY,
            {name: [run.simulated.done / 60 for run in runs] for name, runs in lines.items()},
            ticks=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            logarithmic=True,
        ),
        Panel(
            "US dollars",
            "functions that move files",
            CONCURRENCY,
            {name: [run.bill.price() for run in runs] for name, runs in lines.items()},
            ticks=(0, 0.2, 0.4, 0.6, 0.8, 1.0),
        ),
    ]
    return draw(panels)


@cache
def run() -> tuple[list[Run], list[Run], list[Run]]:
    """Return the runs of the model, of the repository and of the file, by concurrency."""
    model = run_all(find_counts("large files", _SHARDS), large=_SHARDS, large_size=_BYTES // _SHARDS)
    repository = run_all(find_counts("small files", _FILES), small=_FILES)
    file = run_all(find_counts("parts", math.ceil(_FILE / choose_part_size(_FILE))), large=1, large_size=_FILE)
    return model, repository, file


def render_page() -> str:
    return describe_scale(*run())


def render_plot() -> str:
    return draw_scale(*run())
