"""The other scanner itself, in its own process, and what becomes of an import when that process comes to harm."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import modelaudit_picklescan
import pytest
from modelaudit_picklescan import scan_bytes

from modelhaul.domain.gate import PickleOpinion, SecondOpinion
from modelhaul_scanner.judging import judge_pickles, judge_report
from modelhaul_scanner.process import ModelauditPickleScanner
from tests.pickles import PLAIN, SYSTEM, build_state_dict
from tests.unit.test_checkpoints import CALLED, CHECKPOINTS, HOSTILE, NAMES, inspect

UNVERIFIED = PickleOpinion(SecondOpinion.UNVERIFIED)
SYSTEM_FOUND = PickleOpinion(SecondOpinion.MALICIOUS, ("Found REDUCE opcode invoking dangerous global: os.system",))


@pytest.fixture
def scanner(tmp_path: Path) -> ModelauditPickleScanner:
    """With the packages of a function alone: the scanner reads the code of numpy and others where they are installed,
    for 13 seconds a pickle.
    """
    (tmp_path / "modelaudit_picklescan").symlink_to(Path(modelaudit_picklescan.__file__).parent)
    run = "runpy.run_module('modelhaul_scanner', run_name='__main__', alter_sys=True)"
    code = f"import runpy, sys; sys.path.append({str(tmp_path)!r}); {run}"
    return ModelauditPickleScanner((sys.executable, "-S", "-c", code))


def read_contents(folder: Path, names: list[str]) -> list[bytes]:
    reports = [inspect(folder / name) for name in names]
    return [report.pickles for report in reports if report.pickles is not None]


def test_each_pickle_gets_its_opinion_in_order(scanner: ModelauditPickleScanner) -> None:
    pickles = [PLAIN, SYSTEM, build_state_dict(), b"garbage", b"", PLAIN + SYSTEM, PLAIN]
    assert scanner.scan(pickles, seconds=60) == [
        PickleOpinion(SecondOpinion.CLEAN),
        SYSTEM_FOUND,
        UNVERIFIED,  # it wants to see torch's own code
        UNVERIFIED,
        UNVERIFIED,
        SYSTEM_FOUND,
        PickleOpinion(SecondOpinion.CLEAN),
    ]


def test_nothing_of_ordinary_weights_is_called_malicious_and_all_calls_are(scanner: ModelauditPickleScanner) -> None:
    ordinary = read_contents(CHECKPOINTS, NAMES)
    hostile = read_contents(HOSTILE, CALLED)
    assert (len(ordinary), len(hostile)) == (len(NAMES), len(CALLED))
    opinions = scanner.scan([*ordinary, *hostile], seconds=300)
    assert {opinion.verdict for opinion in opinions[: len(NAMES)]} <= {SecondOpinion.CLEAN, SecondOpinion.UNVERIFIED}
    assert {opinion.verdict for opinion in opinions[len(NAMES) :]} == {SecondOpinion.MALICIOUS}
    assert all("system" in " ".join(opinion.reasons) for opinion in opinions[len(NAMES) :])


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_in_a_pickle_are_not_called_malicious(seed: int) -> None:
    content = b"\x80\x04B" + (20_000).to_bytes(4, "little") + random.Random(seed).randbytes(20_000) + b"."
    assert judge_report(scan_bytes(content)) == ("unverified", [])


def test_a_pickle_hidden_in_bytes_is_named() -> None:
    content = b"\x80\x04C" + bytes([len(SYSTEM)]) + SYSTEM + b"."
    verdict, reasons = judge_report(scan_bytes(content))
    assert (verdict, reasons) == (
        "malicious",
        ["Nested pickle finding: Found REDUCE opcode invoking dangerous global: os.system"],
    )


def test_opinions_are_written_one_by_one() -> None:
    source = io.BytesIO(b"".join(len(p).to_bytes(8) + p for p in (PLAIN, SYSTEM)))
    target = io.StringIO()
    judge_pickles(source, target, 10)
    assert [json.loads(line) for line in target.getvalue().splitlines()] == [
        {"number": 0, "verdict": "clean", "reasons": []},
        {"number": 1, "verdict": "malicious", "reasons": list(SYSTEM_FOUND.reasons)},
    ]


FIRST = 'print(\'{"number": 0, "verdict": "clean", "reasons": []}\', flush=True)'


@pytest.mark.parametrize(
    ("code", "answered"),
    [
        (f"{FIRST}\nimport os; os.abort()", True),
        (f"{FIRST}\nraise SystemExit(3)", True),
        (f"{FIRST}\nimport time; time.sleep(60)", True),
        (f"{FIRST}\nprint('{{\"number\": 1')", True),
        (f"{FIRST}\nprint('noise', 7, [], '{{}}', sep='\\n')", True),
        ("import os, sys; os.close(0); sys.exit(1)", False),
        ("import missing_package", False),
        ('print(\'{"number": 9, "verdict": "clean", "reasons": []}\')', False),
        ('print(\'{"number": 0, "verdict": "fine", "reasons": []}\')', False),
        ('print(\'{"number": 0, "verdict": "clean", "reasons": 5}\')', False),
    ],
)
def test_a_process_that_comes_to_harm_leaves_the_rest_unverified(code: str, answered: bool) -> None:
    scanner = ModelauditPickleScanner((sys.executable, "-c", code))
    opinions = scanner.scan([PLAIN, SYSTEM * 10_000], seconds=10 if "sleep" in code else 60)
    assert opinions == [PickleOpinion(SecondOpinion.CLEAN) if answered else UNVERIFIED, UNVERIFIED]


def test_a_process_that_cannot_be_started_leaves_all_unverified() -> None:
    assert ModelauditPickleScanner(("/nowhere/python",)).scan([PLAIN], seconds=60) == [UNVERIFIED]


def test_what_it_says_is_shown_as_text_and_in_bounds() -> None:
    told = {"number": 0, "verdict": "malicious", "reasons": ["a\x1b[31m" + "x" * 500] * 30}
    code = f"print({json.dumps(json.dumps(told))})"
    (opinion,) = ModelauditPickleScanner((sys.executable, "-c", code)).scan([PLAIN], seconds=60)
    assert opinion.reasons == (("a?[31m" + "x" * 500)[:200],) * 20


def test_the_process_knows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = "import json, os; told = {'number': 0, 'verdict': 'malicious', 'reasons': sorted(os.environ)}"
    code += "; print(json.dumps(told))"
    (opinion,) = ModelauditPickleScanner((sys.executable, "-c", code)).scan([PLAIN], seconds=60)
    assert opinion.verdict is SecondOpinion.MALICIOUS
    assert not [name for name in opinion.reasons if name.startswith("AWS")]


SPY = """
cd /proc/$PPID
for file in environ mem fd; do
  (if [ $file = fd ]; then ls fd; else exec 3<$file; fi) >/dev/null 2>&1 && readable="$readable $file"
done
printf '{"number": 0, "verdict": "malicious", "reasons": ["readable:%s"]}' "$readable"
"""
FUNCTION = """
import ctypes, os, sys
from modelhaul_scanner import process
if os.getuid() == 0:
    # Nothing stops root. A change of the user has the effect that the test looks for, so it is reversed.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    process._LAYER = "/"
(opinion,) = process.ModelauditPickleScanner(("/bin/sh", "-c", sys.argv[1])).scan([b"N."], seconds=60)
print(*opinion.reasons)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="requires /proc")
@pytest.mark.parametrize(
    ("variables", "readable"),
    [({"AWS_LAMBDA_FUNCTION_NAME": "transfer-files"}, "readable:"), ({}, "readable: environ mem fd")],
    ids=["function", "elsewhere"],
)
def test_the_process_cannot_read_the_credentials_of_the_function(variables: dict[str, str], readable: str) -> None:
    """Elsewhere it can, which shows that the test would find it."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "AWS_SESSION_TOKEN": "secret"}
    command = [sys.executable, "-c", FUNCTION, SPY]
    run = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == readable


def test_the_process_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    code = "import json, os; print(json.dumps({'number': 0, 'verdict': 'clean', 'reasons': sorted(os.environ)}))"
    (opinion,) = ModelauditPickleScanner((sys.executable, "-c", code)).scan([PLAIN], seconds=60)
    assert set(opinion.reasons) <= {"PATH", "LD_LIBRARY_PATH", "LC_CTYPE"}
