"""Downloads by a Hub client through the Hub read API, compared with downloads directly from the loopback Hub."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub

from bench.report import GB, MB, Run, format_spread, format_table
from bench.servers import NAME, start_server
from local.importing import ImportApi
from local.sources import SourceUrls
from local.stack import LocalStack
from tests.hub_clients.environments import HubAccess
from tests.upstream.repositories import MINILM

_SHARDS = 4
_LARGE_ROUNDS = 5
_SMALL_ROUNDS = 9
_REQUESTS = 200  # of each kind, to each server
_POLL_INTERVAL = 0.5  # seconds
_IMPORT_TIMEOUT = 3600.0  # seconds
_TIMEOUT = 600.0  # seconds of a download
_CHUNK_SIZE = 1024 * 1024
_FILE = "model.safetensors"
_KINDS = {
    "HEAD of a file": ("HEAD", f"{MINILM}/resolve/main/{_FILE}"),
    "GET of a file, redirected": ("GET", f"{MINILM}/resolve/main/{_FILE}"),
    "route that does not exist": ("GET", "api/agent-harnesses"),
}

_HEADS = (
    "Model",
    "From the Hub, s",
    "From Modelhaul, s",
    "Time / time from the Hub",
    "Target",
    "Files",
    "Requests to the Hub + CDN",
    "Requests to the API + S3",
)
_REQUEST_LINE = re.compile(r"^Request \S+: [A-Z]+ (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """A server for Hub clients, and the key that it requires."""

    url: str
    key: str | None

    def connect(self) -> HTTPConnection:
        return HTTPConnection(urlsplit(self.url).netloc, timeout=60)

    def request(self, connection: HTTPConnection, method: str, path: str) -> dict[str, str]:
        """Return the headers of the response, in lower case."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        connection.request(method, f"{urlsplit(self.url).path}/{path}", headers=headers)
        response = connection.getresponse()
        response.read()
        return {name.lower(): value for name, value in response.getheaders()}


@dataclass(frozen=True)
class Download:
    """Wall-clock seconds, the ETag and size of each file in the client's cache, and the client's output."""

    seconds: float
    files: dict[str, tuple[str, int]]
    output: str

    def count_requests(self, target: Target) -> str:
        """Return the numbers of requests to the target and to other servers, from the output with HF_DEBUG."""
        urls = _REQUEST_LINE.findall(self.output)
        at_target = sum(url.startswith(f"{target.url}/") for url in urls)
        return f"{at_target} + {len(urls) - at_target}"


@dataclass(frozen=True)
class Model:
    name: str
    title: str
    rounds: int
    target: float  # highest ratio of the times


@contextmanager
def open_targets(size: int) -> Iterator[tuple[Target, Target]]:
    """Yield the loopback Hub, and the local stack that has imported its models. The generated one has `size` bytes."""
    local = LocalStack("bench")
    with start_server("bench.sharded_hub", str(size), str(_SHARDS)) as announced:
        endpoint = announced["endpoint"]
        try:
            urls = SourceUrls(endpoint, endpoint, endpoint, endpoint)
            state = local.start("loopback", urls, 0, lambda _: None)
            api = ImportApi(state)
            for name in (MINILM, NAME):
                _import_model(api, name)
            yield Target(endpoint, None), Target(state.hub_url, api.create_read_key("bench"))
        finally:
            local.stop()


def _import_model(api: ImportApi, name: str) -> None:
    task_id = api.submit("huggingface", {"model_tag": name})
    deadline = time.monotonic() + _IMPORT_TIMEOUT
    while task_id and (task := api.read_task(task_id))["task_status"] != "DONE":
        if task["task_status"] == "FAILED" or time.monotonic() > deadline:
            raise RuntimeError(f"the import of {name} did not succeed: {task}")
        time.sleep(_POLL_INTERVAL)


def download(target: Target, name: str, **variables: str) -> Download:
    """Download a model with an empty cache. Raises RuntimeError with the client's output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = HubAccess(target.url, target.key, Path(folder)).build_environment()
        seconds, output = run_hf({**environment, **variables}, "download", name)
        return Download(seconds, _list_files(Path(folder) / "hub" / "hub"), output)


def run_hf(environment: Mapping[str, str], *arguments: str) -> tuple[float, str]:
    """Run the command `hf`, and return the seconds and the output. Raises RuntimeError with the output if it fails."""
    started = time.perf_counter()
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "hf"), *arguments],
        env={**environment, "HF_HUB_DISABLE_XET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    seconds = time.perf_counter() - started
    if ended.returncode:
        raise RuntimeError(f"hf {' '.join(arguments)} failed:\n{ended.stdout}")
    return seconds, ended.stdout


def _list_files(cache: Path) -> dict[str, tuple[str, int]]:
    """Return the ETag and the size of each file in a client's cache of one model."""
    paths = (path for path in cache.glob("models--*/snapshots/*/**/*") if path.is_file())
    return {path.relative_to(cache).as_posix(): (path.resolve().name, path.stat().st_size) for path in sorted(paths)}


def _warm_up(hub: Target, modelhaul: Target, model: Model) -> tuple[int, str, str]:
    """Download the model twice from each server. Returns the number of files, and the requests of one download.

    Raises RuntimeError if the servers do not have the same files.
    """
    for target in (hub, modelhaul):
        download(target, model.name)
    direct, imported = (download(target, model.name, HF_DEBUG="1") for target in (hub, modelhaul))
    if direct.files != imported.files:
        raise RuntimeError(f"the downloads of {model.name} differ: {direct.files}, {imported.files}")
    return len(direct.files), direct.count_requests(hub), imported.count_requests(modelhaul)


def measure_transfer(urls: Sequence[str]) -> float:
    """Return the seconds in which signed URLs are read at the same time, and their content is discarded."""

    def read(url: str) -> None:
        address = urlsplit(url)
        connection = HTTPConnection(address.netloc, timeout=_TIMEOUT)
        connection.request("GET", f"{address.path}?{address.query}")
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{url}: {response.status}")
        buffer = bytearray(_CHUNK_SIZE)
        while response.readinto(buffer):
            pass
        connection.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(len(urls)) as threads:
        list(threads.map(read, urls))
    return time.perf_counter() - started


def _sign_shards(target: Target) -> list[str]:
    """Return the signed URLs of the generated model's large files."""
    connection = target.connect()
    paths = [f"model-{number:05}-of-{_SHARDS:05}.safetensors" for number in range(1, _SHARDS + 1)]
    urls = [target.request(connection, "GET", f"{NAME}/resolve/main/{path}")["location"] for path in paths]
    connection.close()
    return urls


def measure_requests(targets: Sequence[Target], count: int) -> dict[str, list[list[float]]]:
    """Return the milliseconds of each request, by kind and target. One connection is used for each target."""
    connections = [target.connect() for target in targets]
    found: dict[str, list[list[float]]] = {kind: [[] for _ in targets] for kind in _KINDS}
    for _ in range(count):
        for kind, (method, path) in _KINDS.items():
            for target, connection, times in zip(targets, connections, found[kind], strict=True):
                started = time.perf_counter()
                target.request(connection, method, path)
                times.append((time.perf_counter() - started) * 1000)
    for connection in connections:
        connection.close()
    return found


def describe_hub_reads(run: Run) -> str:
    """Return the section. Requests and downloads from both servers take turns."""
    size = run.scale_size(2 * GB)
    models = (
        Model(MINILM, "MiniLM", _SMALL_ROUNDS, 1.5),
        Model(NAME, f"generated, {size / MB:,.0f} MB in {_SHARDS} large files", _LARGE_ROUNDS, 1.1),
    )
    with open_targets(size) as targets:
        downloads = [_describe_model(*targets, model) for model in models]
        transfers = [[measure_transfer(_sign_shards(target)) for target in targets] for _ in range(_LARGE_ROUNDS)]
        requests = measure_requests(targets, run.scale_count(_REQUESTS))
    starts = [run_hf({}, "version")[0] for _ in range(_LARGE_ROUNDS)]
    at_hub, at_s3 = (format_spread(seconds) for seconds in zip(*transfers, strict=True))
    return f"""\
## Reads by Hub clients

`hf download` (huggingface_hub {huggingface_hub.__version__}, without Xet, with an empty cache) downloads models through
the Hub read API of the deployed local stack, and directly from the loopback Hub. Both servers are warm and run on the
same cores as the client. The downloads take turns, and the values are medians of {_SMALL_ROUNDS} and {_LARGE_ROUNDS}
rounds (lowest to highest). The times include the start of the command: `hf version` takes
{format_spread(starts)} s.

{format_table(_HEADS, downloads)}

The requests are those of one download, counted in the log of the client. Python clients take the signed URL of a large
file from the Hub's response to HEAD, and the Hub itself serves small files. The Hub read API does not redirect HEAD and
serves no content, so that each file requires HEAD and GET, and a GET to S3. The first request of the command has no
key, and API Gateway rejects it.

The large files alone, from their signed URLs at the same time and without a client, take {at_hub} s from the
CDN of the loopback Hub and {at_s3} s from MiniStack's S3, which maps their files.

Milliseconds of a request on an open connection, medians of {run.scale_count(_REQUESTS)} (lowest to highest). The route
that does not exist shows the cost of MiniStack's API Gateway and of the invocation: its response needs no request to
AWS. HEAD and GET make one request to DynamoDB and none to S3 (`tests/integration/test_hub_read_calls.py`). The
authorizer's response is cached for a minute.

{format_table(("Request", "Modelhaul, ms", "Loopback Hub, ms"), _describe_requests(requests))}"""


def _describe_requests(requests: Mapping[str, Sequence[Sequence[float]]]) -> list[list[str]]:
    return [
        [kind, format_spread(imported, 1), format_spread(direct, 1)] for kind, (direct, imported) in requests.items()
    ]


def _describe_model(hub: Target, modelhaul: Target, model: Model) -> list[str]:
    files, at_hub, at_modelhaul = _warm_up(hub, modelhaul, model)
    seconds = [
        (download(hub, model.name).seconds, download(modelhaul, model.name).seconds) for _ in range(model.rounds)
    ]
    return [
        model.title,
        format_spread([direct for direct, _ in seconds]),
        format_spread([imported for _, imported in seconds]),
        format_spread([imported / direct for direct, imported in seconds]),
        f"≤ {model.target}",
        str(files),
        at_hub,
        at_modelhaul,
    ]
