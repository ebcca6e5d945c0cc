"""Conclusion of the inspection of a model from the reports of its files."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from modelhaul.domain.errors import UnsafeModelError
from modelhaul.domain.findings import ContentReport, FileInspection, FileVerdict, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, PickleOpinion, PicklePolicy, SecondOpinion
from modelhaul.inspection.loaders import is_training_state, is_unpickled, runs_when_loaded

_MAX_REASONS = 20
_MAX_REASON = 300  # characters


def conclude(
    reports: Mapping[str, ContentReport],
    digests: Mapping[str, str],
    named_by: Mapping[str, str],
    opinions: Mapping[str, PickleOpinion],
    policy: PicklePolicy,
    incomplete: Iterable[str],
) -> GateReport:
    """Return the report of a model. Raises UnsafeModelError for findings that the policy blocks.

    The keys are file paths. `digests`: the SHA-256 of each file. `named_by`: for a file that another file lists, the
    path of that other file. `opinions`: those on the files with pickles. `incomplete`: flags of indexes with missing
    shards.
    """
    reasons: dict[str, list[str]] = {}
    for path, report in reports.items():
        if found := _list_reasons(path, report, named_by.get(path), opinions.get(path), policy):
            reasons[path] = found
    left_out: dict[str, str] = {}
    if policy is PicklePolicy.BLOCK:
        left_out = {p: found[0] for p, found in reasons.items() if is_training_state(p) and p not in named_by}
    published = {path: report for path, report in reports.items() if path not in left_out}
    lines = [f"{path}: {reason}" for path, found in reasons.items() if path in published for reason in found]
    if policy is PicklePolicy.BLOCK:
        _refuse_unsafe(lines)
    flags = (
        *incomplete,
        *(f"left-out: {path}: {reason}" for path, reason in sorted(left_out.items())),
        *_flag_files(published),
    )
    return GateReport(
        verdict=_find_verdict(lines, published.values()),
        reasons=tuple(line[:_MAX_REASON] for line in lines[:_MAX_REASONS]),
        flags=flags,
        scanned=tuple((path, digests[path]) for path, report in published.items() if report.is_loadable),
        second_opinion=_combine_opinions(opinions[path] for path in published if path in opinions),
        files=tuple(_record_file(path, digests[path], report) for path, report in published.items()),
        left_out=tuple(sorted(left_out)),
    )


def _list_reasons(
    path: str, report: ContentReport, named_by: str | None, opinion: PickleOpinion | None, policy: PicklePolicy
) -> list[str]:
    """Return why loading the file could run code."""
    reasons = [finding.detail for finding in report.findings if finding.severity is Severity.HIGH]
    is_run = named_by is not None or is_unpickled(path) or runs_when_loaded(path)
    is_unread = report.is_unread or (report.reason is not None and is_run)
    if not reasons and is_unread and policy is PicklePolicy.BLOCK:
        role = f", and referenced by {named_by}, so a loader may unpickle it" if named_by is not None else ""
        reasons.append(f"Not inspected completely ({report.reason}){role}")
    if opinion is not None and opinion.verdict is SecondOpinion.MALICIOUS:
        reasons += opinion.reasons
    return reasons


def _refuse_unsafe(lines: Sequence[str]) -> None:
    if lines:
        shown = "; ".join(line[:_MAX_REASON] for line in lines[:_MAX_REASONS])
        raise UnsafeModelError(f"Loading the model could run code: {shown}.")


def _find_verdict(lines: Sequence[str], reports: Collection[ContentReport]) -> GateVerdict:
    if lines:
        return GateVerdict.UNSAFE
    is_clean = all(report.verdict is FileVerdict.CLEAN for report in reports)
    return GateVerdict.CLEAN if is_clean else GateVerdict.UNSCANNED


def _flag_files(reports: Mapping[str, ContentReport]) -> Iterator[str]:
    """Yield `kind: path` for findings that are no reason to refuse, and `not-scanned: path: reason`."""
    for path, report in sorted(reports.items()):
        kinds = dict.fromkeys(f.kind for f in report.findings if f.severity is not Severity.HIGH)
        yield from (f"{kind}: {path}" for kind in kinds)
        if report.reason is not None:
            yield f"not-scanned: {path}: {report.reason}"


def _combine_opinions(opinions: Iterable[PickleOpinion]) -> SecondOpinion | None:
    verdicts = {opinion.verdict for opinion in opinions}
    order = (SecondOpinion.MALICIOUS, SecondOpinion.UNVERIFIED, SecondOpinion.CLEAN)
    return next((verdict for verdict in order if verdict in verdicts), None)


def _record_file(path: str, sha256: str, report: ContentReport) -> FileInspection:
    return FileInspection(path, sha256, report.format, report.verdict, report.reason, report.findings)
