"""Check the template against the proactive controls of AWS Control Tower, with cfn-guard.

`make check` runs this module. The package `cdk-validator-cfnguard` of AWS has the program and the rules. They do not
evaluate intrinsic functions, so they get the template as CloudFormation resolves it, with the parameters that a company
with these controls would choose.

A control that does not apply is skipped by a comment beside the resource: `# cfn-guard:skip=CT.S3.PR.9:REASON`. If
checkov has the same check (`SAME_CHECKS`), its comment counts for both.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.template.transformed import ROOT, Template, apply_parameters, read_template, transform_template

PACKAGE = ROOT / ".local/venvs/cfn_guard/package"
PARAMETERS: Mapping[str, str | int] = {
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "AccessLogBucket": "access-logs",
    "NoncurrentVersionDays": 30,
    "NotificationEmail": "team@example.com",
    "LogRetentionDays": 365,
    "HubOnMiss": "IMPORT",
}
SAME_CHECKS = {
    "CT.DYNAMODB.PR.1": "CKV_AWS_28",
    "CT.LAMBDA.PR.3": "CKV_AWS_117",
    "CT.S3.PR.11": "CKV_AWS_21",
}
"""Check of checkov by control that requires the same."""

OTHER_REQUIREMENTS = {"CT.APIGATEWAY.PR.1"}
"""Controls that no resource is checked against."""

_PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "modelhaul",
    "AWS::URLSuffix": "amazonaws.com",
}
_SKIP = re.compile(r"#\s*(?:cfn-guard|checkov):skip=([A-Z0-9_.]+):\s*(\S.*)")
_RESOURCE = re.compile(r"^  (\w+):$")


@dataclass(frozen=True, order=True)
class Finding:
    """A resource of the transformed template that does not fulfil a control."""

    control: str
    resource: str
    requirement: str


def resolve_template(template: Template, parameters: Mapping[str, str | int]) -> Template:
    """Return a transformed template with values instead of intrinsic functions. Physical names are logical IDs."""
    resources = apply_parameters(template, **{name: str(value) for name, value in parameters.items()})["Resources"]
    values = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    values |= _PSEUDO_PARAMETERS | dict(parameters)
    for name, resource in resources.items():
        service = resource["Type"].split("::")[1].lower()
        owner = ":" if service == "s3" else "us-east-1:123456789012"
        values |= {name: name.lower(), f"{name}.Arn": f"arn:aws:{service}:{owner}:{name.lower()}"}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": _resolve(resources, values)}


def _resolve(value: Any, values: Mapping[str, Any]) -> Any:
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), "Arn"]}:
            return values[f"{name}.Arn" if "Fn::GetAtt" in value else name]
        case {"Fn::GetAtt": [str(name), _]}:
            return values[name]
        case {"Fn::Sub": text}:
            text, given = text if isinstance(text, list) else (text, {})
            known = {**values, **_resolve(given, values)}
            # Attributes other than the ARN are names.
            return re.sub(r"\$\{([\w:]+)(\.Arn)?[^}]*\}", lambda found: str(known[found[1] + (found[2] or "")]), text)
        case dict():
            return {key: _resolve(item, values) for key, item in value.items()}
        case list():
            return [_resolve(item, values) for item in value]
    return value


def run_guard(template: Template, package: Path = PACKAGE) -> list[Finding]:
    """Return the findings of all controls, sorted. Raises CalledProcessError if cfn-guard cannot run."""
    system = {"Linux": "ubuntu", "Darwin": "macos"}[platform.system()]
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    rules = package / "rules/control-tower/cfn-guard"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "template.json")
        path.write_text(json.dumps(template))
        command: list[str | Path] = [
            package / "bin" / system / machine / "cfn-guard",
            "validate",
            "--rules",
            rules,
            "--data",
            path,
        ]
        command += ["--structured", "--output-format", "json", "--show-summary", "none"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    # 19: a rule failed.
    if run.returncode not in {0, 19}:
        raise subprocess.CalledProcessError(run.returncode, command, run.stdout, run.stderr)
    (report,) = json.loads(run.stdout)
    findings = {finding for rule in report["not_compliant"] for finding in _list_findings(json.dumps(rule))}
    return sorted(findings)


def _list_findings(rule: str) -> Iterator[Finding]:
    for control, requirement in set(re.findall(r"\[(CT\.[A-Z0-9.]+)\]: ([^\\\"]+)", rule)):
        for resource in set(re.findall(r"/Resources/(\w+)", rule)):
            yield Finding(control, resource, requirement.strip())


def list_skips(*paths: Path) -> dict[str, set[str]]:
    """Return the skipped checks of each resource of the templates, as written."""
    skips: dict[str, set[str]] = {}
    for path in paths:
        resource = ""
        for line in path.read_text().splitlines():
            if found := _RESOURCE.match(line):
                resource = found[1]
            elif found := _SKIP.search(line):
                skips.setdefault(resource, set()).add(found[1])
    return skips


def list_unexplained(findings: list[Finding], skips: Mapping[str, set[str]]) -> list[Finding]:
    """Return the findings that no comment of the resource, or of the resource that SAM generated it for, skips."""

    def is_skipped(finding: Finding) -> bool:
        named = {finding.control, SAME_CHECKS.get(finding.control, "")}
        owners = [owner for owner in skips if finding.resource.startswith(owner)]
        return finding.control in OTHER_REQUIREMENTS or any(named & skips[owner] for owner in owners)

    return [finding for finding in findings if not is_skipped(finding)]


if __name__ == "__main__":
    resolved = resolve_template(transform_template(read_template()), PARAMETERS)
    unexplained = list_unexplained(run_guard(resolved), list_skips(ROOT / "template.yaml", ROOT / "monitoring.yaml"))
    for finding in unexplained:
        print(f"{finding.resource}: {finding.control}: {finding.requirement}", file=sys.stderr)
    sys.exit(bool(unexplained))
