"""What modelaudit-picklescan makes of pickles, reduced to what can be relied on."""

import json
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from modelaudit_picklescan import PickleReport, PickleScanner, ScanOptions, Severity

from modelhaul_scanner import LENGTH_BYTES

_NAMED = {"DANGEROUS_CALL", "DANGEROUS_GLOBAL"}
_OPAQUE = "copyreg.extension"


def judge_pickles(source: BinaryIO, target: TextIO, seconds: float) -> None:
    """Writes a line of JSON for each pickle, as soon as it is judged: its `number`, `verdict` (clean, unverified,
    malicious) and `reasons`. At most about `seconds` for one.
    """
    scanner = PickleScanner(options=ScanOptions(timeout_s=seconds))
    for number, pickle in enumerate(_read_pickles(source)):
        verdict, reasons = judge_report(scanner.scan_bytes(pickle))
        print(json.dumps({"number": number, "verdict": verdict, "reasons": reasons}), file=target, flush=True)


def judge_report(report: PickleReport) -> tuple[str, list[str]]:
    """Malicious is only what names a dangerous callable. The scanner's own verdict says so of bytes, too, in which by
    chance something begins like a pickle: of three quarters of arrays with random content.
    """
    reasons = [
        finding.message
        for finding in report.findings
        if finding.severity is Severity.CRITICAL
        and finding.rule_code in _NAMED
        and not str(finding.details.get("import_reference", _OPAQUE)).startswith(_OPAQUE)
    ]
    if reasons:
        return "malicious", list(dict.fromkeys(reasons))
    return "clean" if report.is_clean else "unverified", []


def _read_pickles(source: BinaryIO) -> Iterator[bytes]:
    while length := source.read(LENGTH_BYTES):
        yield source.read(int.from_bytes(length))
