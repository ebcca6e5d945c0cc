"""Intermediate results of an inspection, stored in S3 so that another function can continue the inspection."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelhaul.domain.errors import ObjectGoneError
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.domain.gate import PickleOpinion, SecondOpinion
from modelhaul.domain.keys import inspection_key
from modelhaul.ports.object_store import ObjectStore

logger = logging.getLogger(__name__)

_VERSION = 1
_MAX_SIZE = 1024 * 1024 * 1024  # bytes; larger than any notes


@dataclass(slots=True)
class InspectionNotes:
    """Reports and opinions of the second scanner, by the file's path."""

    reports: dict[str, ContentReport] = field(default_factory=dict)
    opinions: dict[str, PickleOpinion] = field(default_factory=dict)

    def merge(self, other: "InspectionNotes") -> None:
        """Add the results that are missing here. Functions that inspect the same file create the same report."""
        self.reports = other.reports | self.reports
        self.opinions = other.opinions | self.opinions

    def add(self, path: str, report: ContentReport, opinion: PickleOpinion | None) -> None:
        # The second scanner has its own copy of the pickles, and all pickles would fill the memory.
        self.reports[path] = replace(report, pickles=None) if report.pickles is not None else report
        if opinion is not None:
            self.opinions[path] = opinion


def load_notes(store: ObjectStore, task_id: str) -> InspectionNotes:
    """Return the stored notes, which are empty if they are missing or if this version cannot read them."""
    try:
        return _read_notes(json.loads(store.read(inspection_key(task_id), 0, _MAX_SIZE)))
    except ObjectGoneError:
        return InspectionNotes()
    except (ValueError, LookupError, TypeError, AttributeError):
        logger.warning("ignored unreadable inspection notes", extra={"task_id": task_id})
        return InspectionNotes()


def save_notes(store: ObjectStore, task_id: str, notes: InspectionNotes) -> None:
    content = {
        "version": _VERSION,
        "reports": {path: _write_report(report) for path, report in notes.reports.items()},
        "opinions": {path: [opinion.verdict, *opinion.reasons] for path, opinion in notes.opinions.items()},
    }
    body = json.dumps(content, separators=(",", ":")).encode()
    store.put(inspection_key(task_id), body, sha256=hashlib.sha256(body).hexdigest())


def _write_report(report: ContentReport) -> list[Any]:
    findings = [[finding.kind, finding.severity, finding.detail] for finding in report.findings]
    return [report.format, report.reason, report.is_loadable, report.is_unread, findings]


def _read_notes(content: Mapping[str, Any]) -> InspectionNotes:
    if content["version"] != _VERSION:
        raise ValueError(content["version"])
    notes = InspectionNotes()
    for path, (format_name, reason, is_loadable, unread, findings) in content["reports"].items():
        found = tuple(Finding(FindingKind(k), Severity(s), detail) for k, s, detail in findings)
        notes.reports[path] = ContentReport(format_name, reason, found, is_loadable, unread=unread)
    for path, (verdict, *reasons) in content["opinions"].items():
        notes.opinions[path] = PickleOpinion(SecondOpinion(verdict), tuple(reasons))
    return notes
