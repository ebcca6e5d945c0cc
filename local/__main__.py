"""`python -m local up|down|run`: the local stack from the command line; the Makefile calls it."""

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console

from local.errors import LocalStackError
from local.importing import import_samples, print_commands, print_function_errors, say
from local.sample import write_sample_archive
from local.sources import Addresses
from local.stack import DEFAULT_NAME, LocalStack, StackState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local", description="The local stack.")
    parser.add_argument("--stack", default=DEFAULT_NAME, help="name; stacks of different names run side by side")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("up", "start in the background"),
        ("run", "start, import a ZIP and models, stay until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("--upstream", choices=("auto", "internet", "loopback"), default="auto")
        command.add_argument("--hf-endpoint", default="", help="any server that speaks the Hub's protocol")
        command.add_argument("--github-api-url", default="", help="any server that speaks GitHub's REST API")
        command.add_argument("--github-url", default="", help="the site that belongs to it, with the LFS server")
        command.add_argument("--github-raw-url", default="", help="its raw host; without it files come from the API")
        command.add_argument("--port", type=int, default=0, help="MiniStack's port; 0 takes a free one")
        if name == "run":
            command.add_argument("--once", action="store_true", help="stop after the imports")
    commands.add_parser("down", help="stop and remove")
    return parser.parse_args(arguments)


def start(stack: LocalStack, options: argparse.Namespace, console: Console) -> StackState:
    asked = Addresses(options.hf_endpoint, options.github_api_url, options.github_url, options.github_raw_url)
    return stack.start(options.upstream, asked, options.port, partial(say, console))


def bring_up(stack: LocalStack, options: argparse.Namespace, console: Console) -> None:
    state = start(stack, options, console)
    say(console, f"Up: {state.api_url} ({stack.state_path})")
    print_commands(state, write_sample_archive(stack.folder), console)


def take_down(stack: LocalStack, console: Console) -> None:
    console.print("Stopped." if stack.stop() else "Nothing to stop.")


def try_import(state: StackState, sample: Path, console: Console) -> bool:
    try:
        done = import_samples(state, sample, console)
    except LocalStackError as error:
        say(console, str(error))
        done = False
    if not done:
        print_function_errors(state, console)
    return done


def run_in_foreground(stack: LocalStack, options: argparse.Namespace, console: Console) -> int:
    try:
        state = start(stack, options, console)
        done = try_import(state, write_sample_archive(stack.folder), console)
        if options.once:
            return 0 if done else 1
        say(console, "Up until Ctrl-C.")
        psutil.Process(state.ministack_pid).wait()
        raise LocalStackError("MiniStack ended by itself.")
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        take_down(stack, console)


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    console = Console()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        stack = LocalStack(options.stack)
        match options.command:
            case "up":
                bring_up(stack, options, console)
            case "down":
                take_down(stack, console)
            case "run":
                return run_in_foreground(stack, options, console)
    except LocalStackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Asked for: the way in which `run` ends.
        return 0 if options.command == "run" else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
