"""Packed results of the files of a group."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.files import FileRecord
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.gate import FileCheck, PickleOpinion, SecondOpinion

_MAX_PACKED = 150_000  # bytes; the limit of an item is 400 KB


@dataclass(frozen=True, slots=True)
class _Limits:
    """`details`: findings and reasons with a text, per file. `characters`: of each text."""

    details: int
    characters: int

    def shorten(self, text: str | None) -> str | None:
        return None if text is None else text[: self.characters]

    def limit_findings(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Keep the most severe findings, and one of each kind and severity, whose text may be only its kind."""
        if len(findings) > self.details:
            ranked = limit_findings(findings, len(findings))
            first = {(finding.kind, finding.severity): finding for finding in reversed(ranked)}
            distinct = limit_findings(first.values(), len(first))
            kept = limit_findings(tuple(dict.fromkeys((*distinct, *ranked)))[: self.details], self.details)
            findings = (*kept, *(replace(finding, detail=finding.kind) for finding in distinct[self.details :]))
        return tuple(replace(finding, detail=finding.detail[: self.characters]) for finding in findings)


# The last of them fit any results: 128 files take at most 80 KB.
_LIMITS = (_Limits(20, 300), _Limits(5, 300), _Limits(3, 120), _Limits(1, 30))


def pack_results(records: Sequence[FileRecord]) -> bytes:
    """Pack the results in the order of the files. Texts and findings of checks are limited, so that they fit."""
    for limits in _LIMITS:
        packed = pack([_list_result(record, limits) for record in records])
        if len(packed) <= _MAX_PACKED:
            break
    return packed


def unpack_results(packed: bytes | None, records: Sequence[FileRecord]) -> tuple[FileRecord, ...]:
    """Return the records with their results."""
    if packed is None:
        return tuple(records)
    return tuple(
        record if result is None else _add_result(record, *result)
        for record, result in zip(records, unpack(packed), strict=True)
    )


def _list_result(record: FileRecord, limits: _Limits) -> list[Any] | None:
    if record.sha256 is None:
        return None
    check = None if record.check is None else _list_check(record.check, limits)
    return [record.sha256, record.etag, record.reused, check]


def _add_result(record: FileRecord, sha256: str, etag: str | None, reused: bool, check: Any) -> FileRecord:
    return replace(record, sha256=sha256, etag=etag, reused=reused, check=None if check is None else _to_check(*check))


def _list_check(check: FileCheck, limits: _Limits) -> list[Any]:
    report, opinion = check.report, check.opinion
    return [
        limits.shorten(check.problem),
        limits.shorten(check.placeholder),
        report
        and [
            report.format,
            limits.shorten(report.reason),
            [(f.kind, f.severity, f.detail) for f in limits.limit_findings(report.findings)],
            report.is_loadable,
            report.unread,
        ],
        opinion and [opinion.verdict, [limits.shorten(reason) for reason in opinion.reasons[: limits.details]]],
    ]


def _to_check(problem: str | None, placeholder: str | None, report: Any, opinion: Any) -> FileCheck:
    return FileCheck(
        problem, placeholder, None if report is None else _to_report(*report), opinion and _to_opinion(*opinion)
    )


def _to_report(
    file_format: str,
    reason: str | None,
    findings: list[Any],
    is_loadable: bool,
    unread: bool | None,
) -> ContentReport:
    found = tuple(Finding(FindingKind(kind), Severity(severity), detail) for kind, severity, detail in findings)
    return ContentReport(file_format, reason, found, is_loadable, unread=unread)


def _to_opinion(verdict: str, reasons: list[str]) -> PickleOpinion:
    return PickleOpinion(SecondOpinion(verdict), tuple(reasons))
