"""Archives that our ZIP reader accepts: other programs read the same files with the same contents, or refuse them.

bench.zip_readers compares more archives, and Go's archive/zip too.
"""

import os
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.archives.agreement import find_disagreements, read_like_torch, read_strictly
from tests.archives.building import Member, build, list_members
from tests.archives.generating import generate_archive
from tests.archives.hostile import HOSTILE
from tests.archives.odd import ODD, SMALL
from tests.archives.readers import Reader, Reading, find_program, list_programs, read_with_python

IN_PROCESS: dict[str, Reader] = {"python": read_with_python, "torch": read_like_torch}
PROGRAMS = ("unzip", "7-zip", "bsdtar")
MANY = ("entries-65535", "entries-65536")  # too many files for readers to extract in a test
GENERATED = 600
GENERATED_FOR_PROGRAMS = 100

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name", "ignore:Empty unicode path")


@cache
def find_programs() -> dict[str, Reader]:
    return list_programs()


def require(program: str) -> Reader:
    """Skip the test if the program is missing, except in CI as root on Debian, where `make test` installs it."""
    reader = find_programs().get(program)
    if reader is None:
        reason = f"{program} is not installed (packages unzip, 7zip, libarchive-tools)"
        if os.geteuid() == 0 and shutil.which("apt-get") and "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return reader


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", [name for name in ODD if name not in MANY])
def test_program_extracts_unusual_archives_like_we_do(name: str, program: str) -> None:
    data = ODD[name].data
    files = read_strictly(data)
    assert files is not None
    assert find_disagreements(data, files, {program: require(program)}) == []


@pytest.mark.parametrize("name", [name for name in ODD if name not in MANY])
def test_python_and_torch_read_unusual_archives_like_we_do(name: str) -> None:
    data = ODD[name].data
    files = read_strictly(data)
    assert files is not None
    assert find_disagreements(data, files, IN_PROCESS) == []


@pytest.mark.parametrize("seed", range(4))
def test_python_and_torch_read_generated_archives_like_we_do(seed: int) -> None:
    chance = random.Random(seed)
    accepted = 0
    for number in range(GENERATED):
        data = generate_archive(chance, SMALL)
        files = read_strictly(data)
        if files is not None:
            accepted += 1
            assert find_disagreements(data, files, IN_PROCESS) == [], f"archive {number} of seed {seed}"
    assert accepted > GENERATED / 10, "what is refused compares nothing"


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_extracts_generated_archives_like_we_do(program: str) -> None:
    reader = require(program)
    chance = random.Random(program)
    accepted = 0
    while accepted < GENERATED_FOR_PROGRAMS:
        data = generate_archive(chance, SMALL)
        files = read_strictly(data)
        if files is not None:
            accepted += 1
            assert find_disagreements(data, files, {program: reader}) == [], f"accepted archive {accepted}"


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("vms-version", "unzip"),
        ("volume-label", "unzip"),
        ("asi-unix-link", "unzip"),
        ("same-in-unzip", "unzip"),
        ("directory-attribute", "7-zip"),
        ("directory-mode", "7-zip"),
        ("symlink-of-fat", "7-zip"),
        ("directory-attribute", "bsdtar"),
        ("libarchive-mode", "bsdtar"),
        ("tar-too", "bsdtar"),
        ("unicode-name-in-the-local-header", "bsdtar"),
        ("unicode-name-in-the-directory", "bsdtar"),
        ("unicode-name-of-a-marked-name", "python"),
        ("unicode-name-empty", "7-zip"),
        ("unmarked-as-marked", "python"),
        ("unmarked-exchanged", "python"),
    ],
)
def test_readers_disagree_about_hostile_archives(name: str, program: str) -> None:
    """The archive is refused because this program extracts other or fewer files than other programs."""
    data = HOSTILE[name].data
    reading = (IN_PROCESS.get(program) or require(program))(data)
    others = [read(data) for other, read in {**IN_PROCESS, **find_programs()}.items() if other != program]
    assert reading is not None
    assert any(other is not None and other != reading for other in others)


def test_bsdtar_reads_an_image_in_an_entry_instead_of_the_archive(tmp_path: Path) -> None:
    bsdtar = require("bsdtar")
    (tmp_path / "hidden.pkl").write_bytes(b"hidden")
    program = find_program("bsdtar")
    assert program is not None
    command = [program, "-c", "-f", "image.iso", "--format", "iso9660", "hidden.pkl"]
    subprocess.run(command, cwd=tmp_path, check=True)
    name = b"model/weights.bin"
    image = (tmp_path / "image.iso").read_bytes()[30 + len(name) :]
    data = build([Member(name, image, 0), *list_members()])
    assert bsdtar(data) == Reading({b"hidden.pkl": b"hidden"})
    assert read_strictly(data) is None


def test_comparison_finds_a_difference() -> None:
    data = build([*list_members(), Member(b"model/x;1", b"x")])
    files = read_strictly(build([*list_members(), Member(b"model/x1", b"x")]))
    assert files is not None
    assert find_disagreements(data, files, IN_PROCESS) != []
