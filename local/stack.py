"""Start, deploy and stop a local stack."""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
from botocore.config import Config

from local.errors import LocalStackError, StackStoppedError
from local.processes import ProcessRecord, RecordedProcess
from local.sources import Sources, SourceUrls, Upstream, choose_sources, is_available

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
ENVIRONMENTS = LOCAL / "venvs"
BUILDS = LOCAL / "builds"
# Folders of .local that are not stacks: `make down` deletes the folder of a stack.
_RESERVED_NAMES = {ENVIRONMENTS.name, BUILDS.name, "artifacts", "benchmarks", "contenders", "logs", "tools"}
DEFAULT_NAME = "local"

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
STACK_NAME = "modelhaul"
POLICY_BUCKET, POLICY_KEY = "modelhaul-policy", "policy.json"
START_TIMEOUT = 60  # seconds
# Required by functions to reach the internet from behind a proxy.
NETWORK_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
)


@dataclass(frozen=True)
class StackState:
    """Endpoints and resources of a deployed stack, as written to `stack.json`. `outputs` are the outputs of the
    template. `hub_url` is the URL of the Hub read API, `console_url` that of the page with the dashboard's widget.
    `sample_repository` is the GitHub repository that `make run` imports. `other_model` and `other_repository` can be
    imported too. The repositories are "" if none is known.
    """

    api_url: str
    api_key: str
    hub_url: str
    console_url: str
    aws_endpoint_url: str
    region: str
    incoming_bucket: str
    models_bucket: str
    stack_name: str
    hub_endpoint: str
    github_api_url: str
    sample_repository: str
    other_model: str
    other_repository: str
    ministack_pid: int
    outputs: dict[str, str]


@dataclass(frozen=True)
class Addresses:
    """Ports and URLs of a stack. Each API has a port, so that paths such as /v1/upload/tasks/ID resolve as on AWS."""

    aws_port: int
    api_port: int
    hub_port: int
    console_port: int

    @property
    def aws(self) -> str:
        return f"http://127.0.0.1:{self.aws_port}"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}/v1"

    @property
    def hub(self) -> str:
        return f"http://127.0.0.1:{self.hub_port}/hf"

    @property
    def console(self) -> str:
        return f"http://127.0.0.1:{self.console_port}/"


class LocalStack:
    """A named stack with its folder, processes and state."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        if name in _RESERVED_NAMES:
            raise LocalStackError(f"The stack name {name!r} is reserved.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise LocalStackError(
                f"Invalid stack name {name!r}. Use up to 31 lowercase letters, digits and hyphens. The first character "
                "must not be a hyphen."
            )
        self.name = name
        self.folder = LOCAL / name
        self.state_path = (LOCAL if name == DEFAULT_NAME else self.folder) / "stack.json"
        self.ministack_log = self.folder / "ministack.log"
        self.kept_logs = LOCAL / "logs" / name
        self.processes = ProcessRecord(self.folder / "processes.json")

    def is_up(self) -> bool:
        return self.processes.find_alive("ministack") is not None

    def start(
        self,
        upstream: Upstream,
        urls: SourceUrls,
        port: int,
        report: Callable[[str], None],
        *,
        parameters: Mapping[str, object] = MappingProxyType({}),
        policy: Path | None = None,
        enforce_iam: bool = False,
    ) -> StackState:
        """Start the processes that are not running, then build and deploy the current code.

        `urls` overrides the sources that `upstream` selects. `port` 0 selects a free port. `report` receives status
        messages. `parameters` are parameters of the template, besides those of the sources. `policy` is the document
        of the import policy. `enforce_iam` enforces the policies of each function's role.

        Raises LocalStackError, after stopping the processes if the stack was not running before.
        """
        was_running = self.is_up()
        try:
            document = None if policy is None else policy.read_bytes()
        except OSError as error:
            raise LocalStackError(f"Cannot read the policy {policy}: {error.strerror}.") from None
        try:
            return self._start(upstream, urls, port, report, parameters, document, enforce_iam)
        except BaseException:
            if not was_running:
                self.processes.stop_all()
            raise

    def has_crashed(self) -> bool:
        """Return whether MiniStack exited without `stop`."""
        return any(process.name == "ministack" and not process.is_alive() for process in self.processes.read())

    def wait_for_crash(self) -> str:
        """Wait until MiniStack exits, and return what happened, with the end of its log.

        Raises StackStoppedError if another command has stopped the stack.
        """
        self._check_not_stopped()
        (ministack,) = [process for process in self.processes.read() if process.name == "ministack"]
        status = self.processes.wait(ministack)
        self._check_not_stopped()
        return f"MiniStack {describe_exit(status)}. The end of its log:\n{read_tail(self.ministack_log)}"

    def _check_not_stopped(self) -> None:
        if not self.state_path.exists():
            raise StackStoppedError("The stack was stopped by another command, such as `make down`.")

    def stop(self) -> bool:
        """Stop all processes and delete the folder of the stack. Returns False if it did not exist.

        After a crash, the logs are moved to `kept_logs`.
        """
        existed = self.folder.is_dir()
        has_crashed = self.has_crashed()
        # Before MiniStack exits, so that `wait_for_crash` in another process knows why.
        self.state_path.unlink(missing_ok=True)
        self.processes.stop_all()
        if has_crashed:
            shutil.rmtree(self.kept_logs, ignore_errors=True)
            self.kept_logs.mkdir(parents=True)
            for log in self.folder.glob("*.log"):
                log.rename(self.kept_logs / log.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        return existed

    def _start(
        self,
        upstream: Upstream,
        urls: SourceUrls,
        port: int,
        report: Callable[[str], None],
        parameters: Mapping[str, object],
        policy: bytes | None,
        enforce_iam: bool,
    ) -> StackState:
        if not self.is_up():
            if self.has_crashed():
                report(f"MiniStack has exited unexpectedly. The data of the stack is lost. Logs: {self.kept_logs}")
            self.stop()
            self.folder.mkdir(parents=True)
        sources = choose_sources(upstream, urls, self._start_loopback)
        for line in sources.describe():
            report(line)
        ministack, addresses = self._start_ministack(port, enforce_iam)
        report(f"MiniStack: {addresses.aws} (stands in for AWS)")
        report("Building and deploying the stack, which takes one or two minutes")
        if policy is not None:
            upload_policy(addresses.aws, policy)
            parameters = {**parameters, "PolicyLocation": f"s3://{POLICY_BUCKET}/{POLICY_KEY}"}
            report(f"Policy: s3://{POLICY_BUCKET}/{POLICY_KEY}")
        self._build_and_deploy(addresses.aws, sources.urls, parameters)
        state = self._read_state(addresses, sources, ministack)
        self._start_console(addresses, state.outputs)
        # Written atomically, because other processes wait for this file.
        partial = self.state_path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(state), indent=2) + "\n")
        partial.replace(self.state_path)
        return state

    def _start_loopback(self) -> dict[str, str]:
        """Start the loopback Hub and GitHub, and return their URLs."""
        ready = self.folder / "upstream.json"
        process = self.processes.find_alive("upstream")
        if process is None:
            ready.unlink(missing_ok=True)
            log, repositories = self.folder / "upstream.log", self.folder / "github"
            # From a process that died.
            shutil.rmtree(repositories, ignore_errors=True)
            repositories.mkdir()
            command = [
                sys.executable,
                "-m",
                "tests.upstream",
                "--ready-file",
                str(ready),
                "--folder",
                str(repositories),
            ]
            process = self.processes.start("upstream", command, environment=os.environ, folder=ROOT, log=log)
            wait_until_ready("The loopback Hub and GitHub process", process, log, ready.is_file)
        urls: dict[str, str] = json.loads(ready.read_text())
        return urls

    def _start_ministack(self, port: int, enforce_iam: bool) -> tuple[RecordedProcess, Addresses]:
        """Start MiniStack, and return its process and URLs."""
        ports_file = self.folder / "ports.json"
        if process := self.processes.find_alive("ministack"):
            return process, Addresses(**json.loads(ports_file.read_text()))
        addresses = Addresses(*find_ports(port, 4))
        ports_file.write_text(json.dumps(asdict(addresses)))
        folders = {name: self.folder / name.lower() for name in ("TMPDIR", "STATE_DIR", "S3_DATA_DIR", "HOME")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        # Functions inherit this environment: no variable of the calling shell may leak into it.
        environment = {
            **{name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ},
            **{name: str(folder) for name, folder in folders.items()},
            **CREDENTIALS,
            "GATEWAY_PORT": str(addresses.aws_port),
            "API_PORT": str(addresses.api_port),
            "HUB_PORT": str(addresses.hub_port),
            "BIND_HOST": "127.0.0.1",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "AUTH": str(enforce_iam).lower(),
            "NO_PROXY": "127.0.0.1,localhost",
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
        }
        log = self.ministack_log
        # -P: the script must not be able to import the packages beside it.
        command = [str(ENVIRONMENTS / "ministack" / "bin" / "python"), "-P", str(ROOT / "local" / "emulator.py")]
        process = self.processes.start("ministack", command, environment=environment, folder=self.folder, log=log)
        wait_until_ready("MiniStack", process, log, lambda: is_available(f"{addresses.aws}/_ministack/health"))
        return process, addresses

    def _start_console(self, addresses: Addresses, outputs: Mapping[str, str]) -> None:
        """Start the page with the dashboard's widget, again if it is running, for the current code."""
        if process := self.processes.find_alive("console"):
            self.processes.stop(process)
        command = [
            sys.executable,
            "-m",
            "local.console",
            f"--port={addresses.console_port}",
            f"--aws-endpoint={addresses.aws}",
            f"--render-function={outputs['RenderWidgetFunction']}",
            f"--cancel-function={outputs['CancelFromConsoleFunction']}",
        ]
        log = self.folder / "console.log"
        process = self.processes.start("console", command, environment=os.environ, folder=ROOT, log=log)
        wait_until_ready("The console page", process, log, lambda: is_available(addresses.console))

    def _build_and_deploy(self, endpoint: str, urls: SourceUrls, parameters: Mapping[str, object]) -> None:
        """All stacks share one build: its cache belongs to one build folder (build.toml beside it)."""
        # The SAM CLI notices changes of a layer's folder, not of the script that builds it.
        digest = hashlib.sha256((ROOT / "layers" / "build_layer.py").read_bytes()).hexdigest()
        folder = BUILDS / digest[:12]
        folder.mkdir(parents=True, exist_ok=True)
        overrides = [
            "--parameter-overrides",
            f"Architecture={read_architecture()}",
            f"HuggingFaceEndpoint={urls.hub}",
            f"GitHubApiUrl={urls.github_api}",
            f"GitHubUrl={urls.github}",
            *(f"{name}={value}" for name, value in parameters.items()),
            # In quotation marks, because it may be empty.
            f'GitHubRawUrl="{urls.github_raw}"',
            "LocalMode=true",
        ]
        with lock_file(folder / "lock"):
            template, build, cache = ROOT / "template.yaml", folder / "build", folder / "cache"
            paths = [f"--template={template}", f"--build-dir={build}", "--cached", f"--cache-dir={cache}"]
            self._run_sam("build", *paths, *overrides)
            target = [f"--template-file={build / 'template.yaml'}", f"--stack-name={STACK_NAME}"]
            self._run_sam("deploy", *target, f"--region={REGION}", *overrides, endpoint=endpoint)

    def _run_sam(self, command: str, *arguments: str, endpoint: str = "") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON"))}
        environment = {
            **kept,
            **CREDENTIALS,
            **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "MODELHAUL_ARCHITECTURE": "host",
            "PATH": os.pathsep.join(
                # The layers' Makefiles look for python3.13 and uv.
                [
                    str(Path(sys.executable).parent),
                    os.environ.get("PATH", os.defpath),
                    str(ENVIRONMENTS / "uv/bin"),
                ]
            ),
            "SAM_CLI_TELEMETRY": "0",
        }
        log = self.folder / f"{command}.log"
        log.unlink(missing_ok=True)
        settings = ["--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local"]
        line = [str(ENVIRONMENTS / "sam" / "bin" / "sam"), command, *settings, *arguments]
        process = self.processes.start(f"sam {command}", line, environment=environment, folder=ROOT, log=log)
        status = self.processes.wait(process)
        self.processes.stop(process)
        if status:
            raise LocalStackError(f"sam {command} failed:\n{read_tail(log)}")

    def _read_state(self, addresses: Addresses, sources: Sources, ministack: RecordedProcess) -> StackState:
        session, endpoint = open_session(), addresses.aws
        cloudformation = session.client("cloudformation", endpoint_url=endpoint, config=CLIENT_CONFIG)
        stack = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        hub_api = cloudformation.describe_stack_resource(StackName=STACK_NAME, LogicalResourceId="HubApi")
        api_gateway = session.client("apigateway", endpoint_url=endpoint, config=CLIENT_CONFIG)
        put_hub_responses(api_gateway, hub_api["StackResourceDetail"]["PhysicalResourceId"])
        functions = session.client("lambda", endpoint_url=endpoint, config=CLIENT_CONFIG)
        set_variable(functions, outputs["ManageKeysFunction"], "HUB_URL", addresses.hub)
        return StackState(
            api_url=addresses.api,
            api_key=api_gateway.get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"],
            hub_url=addresses.hub,
            console_url=addresses.console,
            aws_endpoint_url=endpoint,
            region=REGION,
            incoming_bucket=outputs["IncomingBucket"],
            models_bucket=outputs["ModelsBucket"],
            stack_name=STACK_NAME,
            hub_endpoint=sources.urls.hub,
            github_api_url=sources.urls.github_api,
            sample_repository=sources.sample_repository,
            other_model=sources.other_model,
            other_repository=sources.other_repository,
            ministack_pid=ministack.pid,
            outputs=outputs,
        )


CLIENT_CONFIG = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2})


def put_hub_responses(api_gateway: Any, api_id: str) -> None:
    """Give the Hub read API its gateway responses. MiniStack ignores those in the API's definition."""
    for kind, response in json.loads((ROOT / "openapi" / "hub_gateway_responses.json").read_text()).items():
        api_gateway.put_gateway_response(restApiId=api_id, responseType=kind, **response)
    api_gateway.create_deployment(restApiId=api_id, stageName="hf")


def set_variable(functions: Any, function: str, name: str, value: str) -> None:
    """Set an environment variable of a function to a value that the template cannot know."""
    variables = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=function, Environment={"Variables": {**variables, name: value}}
    )


def upload_policy(endpoint: str, document: bytes) -> None:
    """Store the document in a bucket of its own, which is created if it does not exist."""
    s3 = open_session().client("s3", endpoint_url=endpoint, config=CLIENT_CONFIG)
    s3.create_bucket(Bucket=POLICY_BUCKET)
    s3.put_bucket_versioning(Bucket=POLICY_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=POLICY_BUCKET, Key=POLICY_KEY, Body=document)


def open_session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )


def read_architecture() -> str:
    return "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"


def find_ports(first: int, count: int) -> list[int]:
    """Return `count` available ports: from `first` on, or any for 0. Raises LocalStackError."""
    with contextlib.ExitStack() as listeners:
        ports = []
        for number in range(count):
            port = first and first + number
            listener = listeners.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                reason = error.strerror if isinstance(error, OSError) else "the highest port is 65535"
                raise LocalStackError(
                    f"Cannot use port {port} of 127.0.0.1: {reason}.\n"
                    f"Set STACK_PORT to the first of {count} consecutive free ports, or to 0 to use any free ports."
                ) from error
            ports.append(listener.getsockname()[1])
        return ports


def wait_until_ready(name: str, process: RecordedProcess, log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not is_ready():
        if not process.is_alive():
            raise LocalStackError(f"{name} exited during startup:\n{read_tail(log)}")
        if time.monotonic() > deadline:
            raise LocalStackError(f"{name} did not start within {START_TIMEOUT} s:\n{read_tail(log)}")
        time.sleep(0.05)


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which other processes wait for."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def describe_exit(status: int | None) -> str:
    """`status` is None if it is not known, and the negative number of a signal that ended the process."""
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL), usually because the machine has run out of memory"
    if status is None:
        return "exited unexpectedly"
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def read_tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
