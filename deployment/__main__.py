"""`python -m deployment`: command line of the deployment to AWS. The Makefile calls `deploy`."""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deployment.protection import is_deployed
from deployment.quota import choose_transfer_concurrency, describe_choice, read_concurrency
from deployment.saved import SavedAnswers, read_saved_answers, write_overrides

CONFIGURATION = Path("samconfig.toml")
"""In the working directory, as for the SAM CLI."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployment", description="Deploy Modelhaul to an AWS account.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("deploy", help="check the account, and deploy with prompts for the parameters")
    command.add_argument("--architecture", choices=("arm64", "x86_64"), required=True, help="that of the built layers")
    command = commands.add_parser("compare", help="fail if an update would replace or remove resources with data")
    command.add_argument("old", type=Path, help="template.yaml, or the record of the deployed version")
    command.add_argument("new", type=Path, help="template.yaml, or the record of the new version")
    command = commands.add_parser("record", help="print the record of a version, for later comparisons")
    command.add_argument("template", type=Path, help="template.yaml")
    return parser.parse_args(arguments)


def check_concurrency(saved: SavedAnswers) -> dict[str, str]:
    """Return the TransferConcurrency to offer if the account's quota matters for it, and print the reason."""
    session = boto3.Session(profile_name=saved.profile, region_name=saved.region)
    concurrency = read_concurrency(session.client("lambda"))
    given = saved.parameters.get("TransferConcurrency")
    transfers = int(given) if given else choose_transfer_concurrency(concurrency.unreserved)
    if text := describe_choice(concurrency, transfers, session.region_name):
        print(text, flush=True)  # before the output of the SAM CLI
        return {"TransferConcurrency": str(transfers)}
    return {}


def choose_protection(saved: SavedAnswers) -> dict[str, str]:
    """Return the DeletionProtection to offer: on for an update, and the default for a first deployment."""
    session = boto3.Session(profile_name=saved.profile, region_name=saved.region)
    if saved.stack_name and is_deployed(session.client("cloudformation"), saved.stack_name):
        return {"DeletionProtection": "on"}
    # Saved by the deployments of a stack that was deleted since.
    return {"DeletionProtection": "off"} if saved.parameters.get("DeletionProtection") == "on" else {}


def deploy(architecture: str) -> int:
    saved = read_saved_answers(CONFIGURATION)
    parameters = dict(saved.parameters)
    try:
        parameters |= check_concurrency(saved)
    except (BotoCoreError, ClientError) as error:
        # The SAM CLI reports missing credentials. A user may deploy without lambda:GetAccountSettings.
        print(f"The concurrency quota of AWS Lambda was not checked: {error}", flush=True)
    try:
        parameters |= choose_protection(saved)
    except (BotoCoreError, ClientError) as error:
        text = "CloudFormation did not tell whether the stack exists. DeletionProtection is offered as saved"
        print(f"{text}: {error}", flush=True)
    parameters["Architecture"] = architecture
    # The option replaces all saved parameters, which are the defaults of the prompts: pass them again.
    command = ["sam", "deploy", "--guided", "--parameter-overrides", write_overrides(parameters)]
    return subprocess.run(command, check=False).returncode


def compare(old: Path, new: Path) -> int:
    # cfn-lint takes a second to import.
    from deployment.replacements import compare_records, read_record

    findings = compare_records(read_record(old), read_record(new))
    for finding in findings:
        print(finding)
    return int(any(finding.is_fatal for finding in findings))


def record(template: Path) -> int:
    from deployment.replacements import read_record

    lines = (f"{json.dumps(name)}: {json.dumps(one)}" for name, one in read_record(template).items())
    print("{", ",\n".join(lines), "}", sep="\n")
    return 0


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    match options.command:
        case "compare":
            return compare(options.old, options.new)
        case "record":
            return record(options.template)
    try:
        return deploy(options.architecture)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
