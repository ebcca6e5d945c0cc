"""`python -m local up|down|run`: command line of the local stack, called by the Makefile."""

import argparse
import signal
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path

from botocore.exceptions import BotoCoreError
from rich.console import Console

from local.errors import LocalStackError, StackStoppedError
from local.importing import import_samples, print_commands, print_function_errors, print_line
from local.sample import write_sample_archive
from local.sources import SourceUrls
from local.stack import DEFAULT_NAME, ROOT, LocalStack, StackState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local", description="Run Modelhaul on a local stack.")
    parser.add_argument(
        "--stack", default=DEFAULT_NAME, help="name of the stack; stacks with different names can run at the same time"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("up", "start the stack in the background"),
        ("run", "start the stack, import a sample ZIP archive and models, and run until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument(
            "--upstream",
            choices=("auto", "internet", "loopback"),
            default="auto",
            help="sources to import from: internet, loopback (local test servers), or auto (loopback if "
            "huggingface.co is unreachable)",
        )
        command.add_argument("--hf-endpoint", default="", help="URL of a Hub-compatible server")
        command.add_argument("--github-api-url", default="", help="REST API URL of a GitHub-compatible server")
        command.add_argument("--github-url", default="", help="web URL of the same server, which also serves Git LFS")
        command.add_argument(
            "--github-raw-url",
            default="",
            help="raw content URL of the same server; default: files are read from the REST API",
        )
        command.add_argument(
            "--hub-on-miss",
            choices=("NOT_FOUND", "IMPORT", "REDIRECT"),
            default="NOT_FOUND",
            help="what the Hub read API does for a model that is not imported (parameter HubOnMiss)",
        )
        command.add_argument(
            "--signing",
            choices=("off", "KMS"),
            default="off",
            help="whether published models are signed (parameter Signing)",
        )
        command.add_argument(
            "--storage-quota-gb",
            type=Decimal,
            default=Decimal(0),
            metavar="GB",
            help="maximum size of all stored models in GB, such as 0.5, 0 for no quota (parameter StorageQuotaGB)",
        )
        command.add_argument(
            "--audit-retention-days",
            type=int,
            default=0,
            metavar="DAYS",
            help="days for which actions are recorded, 0 to record none (parameter AuditRetentionDays)",
        )
        command.add_argument(
            "--policy",
            type=Path,
            metavar="FILE",
            help="JSON document with rules for imports and retention (parameter PolicyLocation)",
        )
        command.add_argument(
            "--port",
            type=int,
            default=0,
            help="first of four ports: MiniStack, API, Hub read API, console page; 0 selects free ports",
        )
        if name == "run":
            command.add_argument("--once", action="store_true", help="stop the stack after the imports")
    commands.add_parser("down", help="stop the stack and delete its data")
    return parser.parse_args(arguments)


def deploy_stack(stack: LocalStack, options: argparse.Namespace, console: Console) -> StackState:
    urls = SourceUrls(options.hf_endpoint, options.github_api_url, options.github_url, options.github_raw_url)
    report = partial(print_line, console)
    return stack.start(
        options.upstream,
        urls,
        options.port,
        report,
        parameters={
            "HubOnMiss": options.hub_on_miss,
            "Signing": options.signing,
            "StorageQuotaGB": options.storage_quota_gb,
            "AuditRetentionDays": options.audit_retention_days,
        },
        policy=options.policy,
    )


def start_stack(stack: LocalStack, options: argparse.Namespace, console: Console) -> None:
    state = deploy_stack(stack, options, console)
    print_commands(state, write_sample_archive(stack.folder), console)
    print_line(console, f"The stack is running.\nIts URLs and key are in {stack.state_path.relative_to(ROOT)}.")
    print_line(console, f"`{format_stop_command(stack)}` stops it and deletes its data.")


def format_stop_command(stack: LocalStack) -> str:
    return "make down" if stack.name == DEFAULT_NAME else f"make down STACK={stack.name}"


def stop_stack(stack: LocalStack, console: Console) -> None:
    has_crashed = stack.has_crashed()
    if stack.is_up():
        print_line(console, "Stopping the stack and deleting its data")
    console.print("Stopped." if stack.stop() else "The stack is not running.")
    if has_crashed:
        print_line(console, f"MiniStack had exited unexpectedly. Logs: {stack.kept_logs}")


def run_imports(state: StackState, sample: Path, console: Console) -> bool:
    """Import the samples. Returns False if an import failed, after printing the errors of the functions."""
    try:
        is_successful = import_samples(state, sample, console)
    except LocalStackError as error:
        print_line(console, str(error))
        is_successful = False
    if not is_successful:
        print_function_errors(state, console)
    return is_successful


def run_in_foreground(stack: LocalStack, options: argparse.Namespace, console: Console) -> int:
    if stack.is_up():
        # Ctrl-C would stop the stack that another command has started.
        raise LocalStackError(
            f"The stack {stack.name!r} is already running.\n"
            f"To stop it, run `{format_stop_command(stack)}`.\n"
            "To start another stack, run `make run STACK=name`."
        )
    is_deployed = was_stopped = False
    try:
        state = deploy_stack(stack, options, console)
        is_deployed = True
        try:
            is_successful = run_imports(state, write_sample_archive(stack.folder), console)
        except (OSError, BotoCoreError) as error:
            if stack.is_up():
                raise
            raise LocalStackError(stack.wait_for_crash()) from error
        if options.once:
            return 0 if is_successful else 1
        print_line(console, "The stack is running. Press Ctrl-C to stop it.")
        raise LocalStackError(stack.wait_for_crash())
    except StackStoppedError:
        was_stopped = True
        raise
    finally:
        # A second Ctrl-C must not interrupt the cleanup.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if not is_deployed:
            stack.stop()
        elif not was_stopped:
            stop_stack(stack, console)


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    console = Console()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        stack = LocalStack(options.stack)
        match options.command:
            case "up":
                start_stack(stack, options, console)
            case "down":
                stop_stack(stack, console)
            case "run":
                return run_in_foreground(stack, options, console)
    except LocalStackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C is the normal way to end `run`.
        return 0 if options.command == "run" else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
