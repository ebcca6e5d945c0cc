"""The packed files and results of a group are the same when they are unpacked, and fit into an item."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.adapters.dynamodb.file_items import pack_files, unpack_files
from modelhaul.adapters.dynamodb.file_results import pack_results, unpack_results
from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import FileKind, FileRecord, SourceFile
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.domain.gate import FileCheck, PickleOpinion, SecondOpinion

LENGTHS = {Algorithm.SHA256: 64, Algorithm.GIT_SHA1: 40, Algorithm.CRC32: 8}
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30) | st.from_regex(
    r"\A\x00[0-9]\x00[0-9a-f]{15,40}\Z"
)


def write_hex(length: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=length, max_size=length)


DIGESTS = st.one_of([st.builds(Digest, st.just(a), write_hex(length)) for a, length in LENGTHS.items()])
FILES = st.builds(
    SourceFile,
    ANY_TEXT,
    st.integers(0, 500_000_000_000),
    DIGESTS,
    ANY_TEXT,
    st.sampled_from(FileKind),
)
FINDINGS = st.builds(Finding, st.sampled_from(FindingKind), st.sampled_from(Severity), ANY_TEXT)
REPORTS = st.builds(
    ContentReport,
    ANY_TEXT,
    st.none() | ANY_TEXT,
    st.lists(FINDINGS, max_size=5).map(tuple),
    st.booleans(),
    st.none(),
    st.none() | st.booleans(),
)
OPINIONS = st.builds(PickleOpinion, st.sampled_from(SecondOpinion), st.lists(ANY_TEXT, max_size=3).map(tuple))
CHECKS = st.builds(FileCheck, st.none() | ANY_TEXT, st.none() | ANY_TEXT, st.none() | REPORTS, st.none() | OPINIONS)
PLANNED = st.builds(FileRecord, st.just("task"), FILES)
STORED = st.builds(
    FileRecord,
    st.just("task"),
    FILES,
    write_hex(64),
    st.none() | ANY_TEXT | st.from_regex(r"\A[0-9a-f]{32}(-[0-9]{1,5})?\Z"),
    st.booleans(),
    st.none() | CHECKS,
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | ANY_TEXT, lambda inner: st.lists(inner, max_size=5))


@pytest.mark.slow
@given(JSON)
def test_documents_are_unpacked(document: Any) -> None:
    assert unpack(pack(document)) == document


@pytest.mark.slow
@given(st.lists(FILES, max_size=5))
def test_files_are_unpacked(files: list[SourceFile]) -> None:
    assert list(unpack_files(pack_files(files))) == files


@pytest.mark.slow
@given(st.lists(PLANNED | STORED, max_size=5))
def test_results_are_unpacked(records: list[FileRecord]) -> None:
    planned = [FileRecord(record.task_id, record.file) for record in records]
    assert unpack_results(pack_results(records), planned) == tuple(records)
    assert unpack_results(None, planned) == tuple(planned)


@pytest.mark.slow
@pytest.mark.parametrize(("files", "kept"), [(1, 20), (128, 5)])
def test_findings_are_limited_by_the_size_of_the_group(files: int, kept: int) -> None:
    """Each kind remains, and the most severe findings have texts."""
    kinds = [FindingKind.CODE, FindingKind.KERAS_LAMBDA]
    findings = [
        Finding(kind, severity, f"{number:060}" * 10)
        for severity, kind in zip((Severity.LOW, Severity.HIGH), kinds, strict=True)
        for number in range(5000)
    ]
    check = FileCheck(report=ContentReport("keras", findings=tuple(findings)))
    file = SourceFile("a", 1, Digest(Algorithm.SHA256, "0" * 64))
    record = FileRecord("task", file, "0" * 64, "etag", check=check)
    (stored, *_) = unpack_results(pack_results([record] * files), [FileRecord("task", file)] * files)
    assert stored.check is not None
    assert stored.check.report is not None
    found = stored.check.report.findings
    assert {finding.kind for finding in found} == set(kinds)
    assert found[0] == Finding(FindingKind.KERAS_LAMBDA, Severity.HIGH, findings[5000].detail[:300])
    assert len(found) == kept
