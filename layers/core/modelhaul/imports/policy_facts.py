"""The facts that each step of an import knows about a model, for the import policy."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from modelhaul.domain.files import FileRecord
from modelhaul.domain.gate import GateReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.inspection.loaders import is_weight_name
from modelhaul.policy.facts import (
    UNKNOWN_FORMAT,
    UNKNOWN_LICENSE,
    FormatChoice,
    ImportFacts,
    KnownValues,
    find_formats,
    know_model,
    name_format,
)
from modelhaul.policy.license_texts import MAX_LICENSE_SIZE, find_license, is_license_file

# Formats of content that no loader reads as weights, unless the file has the name of weights.
_NO_WEIGHTS = {"jinja", "json", "keras-metadata", "sentencepiece", "text", UNKNOWN_FORMAT, "xml", "yaml"}
_MAX_LICENSE_FILES = 10


def know_archive(now: datetime) -> ImportFacts:
    """Return what is known of any model in an archive."""
    return ImportFacts(now=now, source=Source.LOCAL, gated=False, committed_at=None)


def know_content(
    model: ResolvedModel, records: Sequence[FileRecord], report: GateReport, licenses: Iterable[str], now: datetime
) -> ImportFacts:
    """Return everything that the source and the files of a model tell, before it is published.

    `now`: when the import was submitted, so that the age of a commit is the same in all steps. `records` are those of
    the selected files, `licenses` the result of `read_licenses`. Without an inspection (PicklePolicy off), the formats
    and findings stay open, and so do the licenses if the card has others than those that are recorded.
    """
    known, found = know_model(model, now), frozenset(licenses)
    card = known.licenses.values
    # A card names the license also if nobody has seen the text of it.
    named = card | (found - {UNKNOWN_LICENSE} if card else found)
    is_inspected = bool(report.files) or not records
    return replace(
        known,
        licenses=KnownValues(named, is_complete=model.card is None or not model.card.omits_licenses),
        size=sum(record.file.size for record in records),
        formats=KnownValues(frozenset(_list_formats(model, records, report)), is_complete=is_inspected),
        findings=KnownValues(
            frozenset((finding.kind, finding.severity) for file in report.files for finding in file.findings),
            is_complete=is_inspected,
        ),
        verdict=report.verdict,
    )


def read_licenses(files: Iterable[tuple[str, int, ReadRange]]) -> frozenset[str]:
    """Return the licenses of a model's files, given as (path below the model's root, size, read).

    The license of a file whose text is not that of a known license is `unknown`.
    """
    texts = sorted((file for file in files if is_license_file(file[0])), key=lambda file: file[0])
    found = {_read_license(size, read) for _, size, read in texts[:_MAX_LICENSE_FILES]}
    if len(texts) > _MAX_LICENSE_FILES:
        found.add(None)
    return frozenset(license_id or UNKNOWN_LICENSE for license_id in found)


def _read_license(size: int, read: ReadRange) -> str | None:
    return find_license(read(0, size).decode("utf-8", "replace")) if 0 < size <= MAX_LICENSE_SIZE else None


def _list_formats(model: ResolvedModel, records: Sequence[FileRecord], report: GateReport) -> Iterable[FormatChoice]:
    """Yield the format of each published file of weights. Without an inspection, its possible formats."""
    if not report.files:
        for record in records:
            path = record.file.path.removeprefix(model.root)
            if is_weight_name(path) and path not in report.left_out:
                yield find_formats(path)
        return
    loadable = {path for path, _ in report.scanned}
    for file in report.files:
        name = name_format(file.format)
        if _has_weights(file.path, name, loadable):
            yield frozenset({name})


def _has_weights(path: str, format_name: str, loadable: Collection[str]) -> bool:
    if is_weight_name(path):
        return True
    return format_name not in _NO_WEIGHTS or (path in loadable and format_name == UNKNOWN_FORMAT)
