"""Scan pickles with modelaudit-picklescan, and reduce its reports to reliable verdicts."""

import json
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from modelaudit_picklescan import PickleReport, PickleScanner, ScanOptions, Severity

from modelhaul_scanner import LENGTH_BYTES

_RELIABLE_RULES = {"DANGEROUS_CALL", "DANGEROUS_GLOBAL"}
_UNRESOLVED = "copyreg.extension"  # a reference by number, which does not name a callable


def judge_pickles(source: BinaryIO, target: TextIO, seconds: float) -> None:
    """Write one line of JSON for each pickle after its scan: `number`, `verdict` and `reasons`.

    The verdict is clean, unverified or malicious. The scan of one pickle takes at most about `seconds`.
    """
    scanner = PickleScanner(options=ScanOptions(timeout_s=seconds))
    for number, pickle in enumerate(_read_pickles(source)):
        verdict, reasons = judge_report(scanner.scan_bytes(pickle))
        print(json.dumps({"number": number, "verdict": verdict, "reasons": reasons}), file=target, flush=True)


def judge_report(report: PickleReport) -> tuple[str, list[str]]:
    """Return the verdict and its reasons. A pickle is malicious only if it names a dangerous callable.

    The scanner's own verdict is not reliable: it is also malicious for data in which some bytes look like the start of
    a pickle, such as three quarters of arrays with random content.
    """
    reasons = [
        finding.message
        for finding in report.findings
        if finding.severity is Severity.CRITICAL
        and finding.rule_code in _RELIABLE_RULES
        and not str(finding.details.get("import_reference", _UNRESOLVED)).startswith(_UNRESOLVED)
    ]
    if reasons:
        return "malicious", list(dict.fromkeys(reasons))
    return "clean" if report.is_clean else "unverified", []


def _read_pickles(source: BinaryIO) -> Iterator[bytes]:
    while length := source.read(LENGTH_BYTES):
        yield source.read(int.from_bytes(length))
