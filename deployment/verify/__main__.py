"""`python -m deployment.verify`: command line of the verification, called by the Makefile."""

import argparse
import secrets
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from deployment.verify.checks import CHECKS
from deployment.verify.registry import Verification
from deployment.verify.report import print_result, print_table, write_json
from deployment.verify.results import Outcome, Result, VerificationError
from deployment.verify.runner import clean_up, measure_check
from deployment.verify.target import Target, open_aws_target, open_local_target

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployment.verify", description="Verify a deployed stack.")
    parser.add_argument("--stack-name", default="modelhaul", help="name of the CloudFormation stack")
    parser.add_argument("--region", help="AWS Region; default: of the AWS configuration")
    parser.add_argument("--profile", help="profile of the AWS configuration")
    parser.add_argument("--local", default="", help="name of a local stack (`make up`), instead of a stack in AWS")
    parser.add_argument("--hub-model", help="model of the Hub to import, OWNER/NAME@REVISION")
    parser.add_argument("--github", help="GitHub repository to import, OWNER/NAME@REVISION")
    parser.add_argument("--only", action="append", choices=list(CHECKS), metavar="CHECK", help="run only this check")
    parser.add_argument("--events", action="store_true", help="create a rule and a queue, and check events with them")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    return parser.parse_args(arguments)


def open_target(options: argparse.Namespace) -> Target:
    hub_model, github = options.hub_model or None, options.github or None
    if options.local:
        return open_local_target(options.local, hub_model, github)
    return open_aws_target(options.stack_name, options.region or None, options.profile or None, hub_model, github)


def verify(options: argparse.Namespace, console: Console) -> int:
    """Run the checks, delete what they created, and print the results. Returns the exit status."""
    verification = Verification(open_target(options), datetime.now(UTC), secrets.token_hex(4), options.events)
    console.print(
        f"Verifying {verification.stack.name}: {verification.stack.status}. What the checks create has "
        f"{verification.marker} in its name.",
        highlight=False,
    )
    checks = [check for name, check in CHECKS.items() if not options.only or name in options.only]
    results: list[Result] = []
    is_interrupted = False
    try:
        for check in checks:
            with console.status(check.name):
                results.append(measure_check(check, verification))
            print_result(results[-1], console)
    except KeyboardInterrupt:
        is_interrupted = True
        console.print("Interrupted. Deleting what the checks created")
    finally:
        # A second Ctrl-C must not interrupt the cleanup.
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if "imports" in vars(verification):
            results.append(clean_up(verification.imports.delete_all))
    print_table(results, console)
    if options.json:
        write_json(results, options.json)
    if is_interrupted:
        return _INTERRUPTED
    return int(any(result.outcome is Outcome.FAIL for result in results))


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    if options.list:
        print(*CHECKS, sep="\n")
        return 0
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        return verify(options, Console())
    except VerificationError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
