"""Checks of single files when they are verified, and their use when the model is published."""

import json
import pickle
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import InvalidModelError, StorageUnavailableError, UnsafeModelError
from modelhaul.domain.files import FileRecord, SourceFile
from modelhaul.domain.findings import FileVerdict
from modelhaul.domain.gate import FileCheck, GateReport, GateVerdict, PickleOpinion, PicklePolicy, SecondOpinion
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.inspection.gate import Gate
from tests.fakes.clock import ManualClock
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.pickle_scanner import InMemoryPickleScanner
from tests.pickles import PLAIN, SYSTEM, CountedReads, assemble, build_torch_zip
from tests.weights import wrap_weights

UNVERIFIED = PickleOpinion(SecondOpinion.UNVERIFIED)
CLEAN = PickleOpinion(SecondOpinion.CLEAN)
MALICIOUS = PickleOpinion(SecondOpinion.MALICIOUS, ("os.system",))
LARGE = {f"{number}.bin": pickle.dumps(bytes([number]) * 4_000_000) for number in range(6)}
MODEL = {"config.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}
CALL = assemble("os", "system", form="text")


def check(
    files: dict[str, bytes],
    policy: PicklePolicy = PicklePolicy.BLOCK,
    scanner: InMemoryPickleScanner | None = None,
    *,
    seconds: float = 60.0,
) -> dict[str, FileCheck]:
    checker = FileChecker(policy, scanner or InMemoryPickleScanner())
    checks = {path: checker.check(path, len(content), CountedReads(content)) for path, content in files.items()}
    return checker.add_opinions(checks, seconds=seconds)


@pytest.mark.parametrize("policy", PicklePolicy)
@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("sub/a.safetensors", b"\xff" * 100, "the header length is"),
        ("a.safetensors", b"", "File is empty"),
        ("config.json", b"[]", "File is not a JSON object"),
        ("sub/config.json", b"[]", None),
        ("vocab.txt", b"", None),
    ],
)
def test_files_must_have_the_format_of_their_names(
    path: str, content: bytes, problem: str | None, policy: PicklePolicy
) -> None:
    found = check({path: content}, policy)[path].problem
    assert (problem or "") in (found or "")
    assert (found is None) is (problem is None)


@pytest.mark.parametrize(("size", "problem"), [(2**25, None), (2**25 + 1, "Index has 33,554,433 bytes")])
def test_size_of_files_that_name_files_is_limited(size: int, problem: str | None) -> None:
    checker = FileChecker(PicklePolicy.OFF, InMemoryPickleScanner())
    found = checker.check("modules.json", size, lambda start, end: bytes(end - start)).problem
    assert (found and found.partition(";")[0]) == problem


@pytest.mark.parametrize("policy", PicklePolicy)
def test_placeholders_are_recorded_for_any_name(policy: PicklePolicy) -> None:
    page = b"<!DOCTYPE html><html></html>"
    checks = check({"a.bin": b"", "vocab.txt": page, "README.md": b"# Model"}, policy)
    assert "empty" in (checks["a.bin"].placeholder or "")
    assert "HTML page" in (checks["vocab.txt"].placeholder or "")
    assert checks["README.md"].placeholder is None


def test_reports_have_no_pickles() -> None:
    checks = check({"a.bin": PLAIN, "b.bin": SYSTEM, "c.txt": b"text\n", "d.png": b"\x89PNG\r\n\x1a\n"})
    reports = [found.report for found in checks.values()]
    assert [report and report.verdict for report in reports] == [
        FileVerdict.CLEAN,
        FileVerdict.UNSAFE,
        FileVerdict.CLEAN,
        FileVerdict.UNSCANNED,
    ]
    assert all(report is not None and report.pickles is None for report in reports)


def test_policy_off_inspects_nothing() -> None:
    scanner = InMemoryPickleScanner()
    assert check({"a.bin": SYSTEM}, PicklePolicy.OFF, scanner) == {"a.bin": FileCheck()}
    assert scanner.asked == []


def test_small_file_is_read_once() -> None:
    for path, content in {"model.safetensors": wrap_weights(bytes(8)), "config.json": b"{}", "a.bin": PLAIN}.items():
        read = CountedReads(content)
        FileChecker(PicklePolicy.BLOCK, InMemoryPickleScanner()).check(path, len(content), read)
        assert read.sizes == [len(content)]


def test_errors_of_reads_are_raised() -> None:
    def read(start: int, end: int) -> bytes:
        raise StorageUnavailableError("S3 GetObject failed (SlowDown).")

    checker = FileChecker(PicklePolicy.BLOCK, InMemoryPickleScanner())
    with pytest.raises(StorageUnavailableError):
        checker.check("a.bin", 10, read)


def test_pickles_are_unverified_until_they_are_scanned() -> None:
    scanner = InMemoryPickleScanner(opinions={PLAIN: MALICIOUS})
    checker = FileChecker(PicklePolicy.BLOCK, scanner)
    files = {"a.bin": PLAIN, "b.bin": SYSTEM, "c.txt": b"text\n", "d.pkl": b"\x28\xb5\x2f\xfd"}
    checks = {path: checker.check(path, len(content), CountedReads(content)) for path, content in files.items()}
    assert [found.opinion for found in checks.values()] == [UNVERIFIED, None, None, UNVERIFIED]
    scanned = checker.add_opinions(checks, seconds=300.0)
    assert [found.opinion for found in scanned.values()] == [MALICIOUS, None, None, UNVERIFIED]
    assert checker.add_opinions(checks, seconds=300.0) == scanned, "after an error, the caller asks again"
    assert scanner.asked == [([PLAIN], 60.0)]


def test_opinion_is_on_the_last_content_of_a_path() -> None:
    checker = FileChecker(PicklePolicy.BLOCK, InMemoryPickleScanner(opinions={PLAIN: CLEAN}))
    checker.add_opinions({"a.bin": checker.check("a.bin", len(PLAIN), CountedReads(PLAIN))}, seconds=60.0)
    other = pickle.dumps(bytes(4_200_000))
    checks = {"a.bin": checker.check("a.bin", len(other), CountedReads(other))}
    assert checker.add_opinions(checks, seconds=60.0)["a.bin"].opinion == UNVERIFIED


def test_only_the_pickles_of_the_given_files_are_scanned() -> None:
    scanner = InMemoryPickleScanner()
    checker = FileChecker(PicklePolicy.BLOCK, scanner)
    checks = {path: checker.check(path, len(PLAIN), CountedReads(PLAIN)) for path in ("a.bin", "b.bin")}
    for path, found in checks.items():
        assert checker.add_opinions({path: found}, seconds=60.0)[path].opinion == CLEAN
    assert [len(pickles) for pickles, _ in scanner.asked] == [1, 1]


def test_pickles_are_not_scanned_without_time() -> None:
    scanner = InMemoryPickleScanner()
    assert check({"a.bin": PLAIN}, scanner=scanner, seconds=0.0)["a.bin"].opinion == UNVERIFIED
    assert scanner.asked == []


@pytest.mark.parametrize("seed", range(5))
def test_limit_of_second_scans_does_not_depend_on_the_order_of_checks(seed: int) -> None:
    paths = list(LARGE)
    random.Random(seed).shuffle(paths)
    checks = check({path: LARGE[path] for path in paths})
    assert {path for path, found in checks.items() if found.opinion == CLEAN} == set(list(LARGE)[:4])


def test_checks_by_several_threads() -> None:
    files = {f"{number:03}.bin": build_torch_zip(PLAIN if number % 3 else SYSTEM) for number in range(60)}
    checker = FileChecker(PicklePolicy.BLOCK, InMemoryPickleScanner())
    with ThreadPoolExecutor(8) as pool:
        checks = pool.map(lambda path: checker.check(path, len(files[path]), CountedReads(files[path])), files)
        assert checker.add_opinions(dict(zip(files, checks, strict=True)), seconds=60.0) == check(files)


@dataclass
class ReadCounter(InMemoryObjectStore):
    """`reads` by key."""

    reads: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        self.reads[key.rpartition("/")[2]] += 1
        return super().read(key, start, end, etag=etag)


def stage(files: dict[str, bytes]) -> tuple[ReadCounter, list[FileRecord]]:
    """Return the store with the files, and their records without checks."""
    store, records = ReadCounter(), []
    for path, content in sorted(files.items()):
        digest = sha256(content).hexdigest()
        record = FileRecord("task", SourceFile(path, len(content), Digest(Algorithm.SHA256, digest)), sha256=digest)
        records.append(replace(record, etag=store.put(record.staging_key, content, sha256=digest)))
    return store, records


def publish(
    files: dict[str, bytes],
    checked: dict[str, bytes] | None = None,
    policy: PicklePolicy = PicklePolicy.BLOCK,
    source: Source = Source.HUGGINGFACE,
) -> tuple[GateReport, Counter[str]]:
    """Return the report of a model, and the number of reads of each file. `checked`: the files with a stored check."""
    store, records = stage(files)
    checks = check(files if checked is None else checked)
    session = Gate(store, policy, InMemoryPickleScanner(), ManualClock()).open_session(
        "task", lambda: 800.0, on_save=lambda: None, resume=False
    )
    model = ResolvedModel(source, "org/model", "main", "0" * 40)
    report = session.inspect(model, [replace(record, check=checks.get(record.file.path)) for record in records])
    return report, store.reads


FILES = MODEL | {"a.bin": build_torch_zip(PLAIN), "b.py": b"print()\n", "vocab.txt": b"text\n"}
INDEX = json.dumps({"weight_map": {"a": "vocab.txt"}}).encode()


def test_publication_reads_no_file_with_a_stored_check() -> None:
    report, reads = publish(FILES)
    assert [file.path for file in report.files] == sorted(FILES)
    assert reads == Counter()


@pytest.mark.parametrize("missing", FILES)
def test_publication_inspects_files_without_a_stored_check(missing: str) -> None:
    expected, _ = publish(FILES)
    report, reads = publish(FILES, {path: content for path, content in FILES.items() if path != missing})
    assert report == expected
    assert set(reads) == {missing}


def test_file_without_a_stored_check_is_refused_like_any_other() -> None:
    with pytest.raises(UnsafeModelError, match=r"c\.bin: Pickle imports os\.system"):
        publish(MODEL | {"c.bin": SYSTEM}, MODEL)
    with pytest.raises(InvalidModelError, match=r"c\.bin: File is empty"):
        publish(MODEL | {"c.bin": b""}, MODEL)
    with pytest.raises(InvalidModelError, match=r"c\.safetensors: "):
        publish(MODEL | {"c.safetensors": b"\xff" * 100}, MODEL)


def test_files_that_an_index_names_are_inspected_again_as_pickles() -> None:
    files = MODEL | {"pytorch_model.bin.index.json": INDEX}
    with pytest.raises(UnsafeModelError, match=r"vocab\.txt: Not inspected completely .*referenced by"):
        publish(files | {"vocab.txt": b"text\n"})
    with pytest.raises(UnsafeModelError, match=r"vocab\.txt: Pickle imports os\.system"):
        publish(files | {"vocab.txt": CALL})
    report, reads = publish(files | {"vocab.txt": build_torch_zip(PLAIN)})
    assert report.verdict is GateVerdict.CLEAN
    assert set(reads) == {"pytorch_model.bin.index.json", "vocab.txt"}


@pytest.mark.parametrize("policy", PicklePolicy)
def test_files_that_an_index_names_must_not_be_placeholders(policy: PicklePolicy) -> None:
    files = MODEL | {"pytorch_model.bin.index.json": INDEX, "vocab.txt": b""}
    with pytest.raises(InvalidModelError, match=r"vocab\.txt: File is empty"):
        publish(files, policy=policy)
    del files["pytorch_model.bin.index.json"]
    publish(files, policy=policy)


def test_first_problem_in_path_order_is_reported() -> None:
    index = json.dumps({"weight_map": {"a": "missing.bin"}}).encode()
    files = MODEL | {"b.bin.index.json": index, "c.safetensors": b"\xff" * 100, "a.bin": b""}
    with pytest.raises(InvalidModelError, match=r"^b\.bin\.index\.json: 1 of its shards"):
        publish(files, source=Source.LOCAL)
    with pytest.raises(InvalidModelError, match=r"^c\.safetensors: "):
        publish(files)


def test_policy_off_ignores_stored_reports() -> None:
    report, _ = publish(MODEL | {"a.bin": SYSTEM}, policy=PicklePolicy.OFF)
    assert report == GateReport(GateVerdict.UNSCANNED)
