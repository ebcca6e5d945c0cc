"""Compare our ZIP reader with others on many generated archives: python -m bench.zip_readers.

Python's zipfile, a model of torch's reader and, if `go` is installed, Go's archive/zip read every accepted archive.
unzip, 7-Zip and bsdtar read every fifth archive, because each needs a new process. Archives with different results are
written to .local/zip-disagreements.
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.servers import ROOT
from tests.archives.agreement import find_disagreements, read_like_torch, read_strictly
from tests.archives.generating import generate_archive
from tests.archives.odd import SMALL
from tests.archives.readers import Reader, Reading, list_programs, read_with_python

_SOURCE = Path(__file__).parent / "native/zip_reader.go"
_DISAGREEMENTS = ROOT / ".local/zip-disagreements"
_PROGRAMS_EVERY = 5


@contextmanager
def start_go() -> Iterator[dict[str, Reader]]:
    """Yield Go's reader, in one process for all archives, or no reader if `go` is not installed."""
    go = shutil.which("go")
    if go is None:
        print("go is not installed: skipped archive/zip")
        yield {}
        return
    with TemporaryDirectory() as folder:
        program = Path(folder) / "zip_reader"
        subprocess.run([go, "build", "-o", program, _SOURCE], check=True)
        with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield {"go": lambda data: _read_with_go(process, data)}
            assert process.stdin is not None
            process.stdin.close()


def _read_with_go(process: subprocess.Popen[bytes], data: bytes) -> Reading | None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(struct.pack("<Q", len(data)) + data)
    process.stdin.flush()
    reading = json.loads(process.stdout.readline())
    if reading is None:
        return None
    files = {bytes.fromhex(name): bytes.fromhex(content) for name, content in reading["files"].items()}
    return Reading(files, frozenset(bytes.fromhex(name) for name in reading["specials"]))


def compare(count: int, seed: int) -> int:
    """Return the number of archives that at least one reader reads differently."""
    generator = random.Random(seed)
    accepted: Counter[str] = Counter()
    disagreements = 0
    started = time.monotonic()
    with start_go() as go:
        readers = {"python": read_with_python, "torch": read_like_torch, **go}
        programs = list_programs()
        for number in range(count):
            data = generate_archive(generator, SMALL)
            files = read_strictly(data)
            if files is None:
                continue
            accepted["ours"] += 1
            compared = readers | programs if accepted["ours"] % _PROGRAMS_EVERY == 0 else readers
            accepted.update(list(compared))
            differences = find_disagreements(data, files, compared)
            if differences:
                disagreements += 1
                _DISAGREEMENTS.mkdir(parents=True, exist_ok=True)
                (_DISAGREEMENTS / f"{seed}-{number}.zip").write_bytes(data)
                print(f"{seed}-{number}", *differences, sep="\n  ", flush=True)
    print(f"{count:,} archives in {time.monotonic() - started:,.0f} s, {accepted['ours']:,} accepted by our reader")
    print(*(f"  {name}: {number:,} compared" for name, number in accepted.items() if name != "ours"), sep="\n")
    print(f"{disagreements:,} disagreements")
    return disagreements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    raise SystemExit(1 if compare(arguments.count, arguments.seed) else 0)


if __name__ == "__main__":
    main()
