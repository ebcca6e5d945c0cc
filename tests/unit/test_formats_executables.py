import py_compile
import struct
import sys
from pathlib import Path

import pytest

from modelhaul.domain.findings import FindingKind, Severity
from modelhaul.inspection.formats.executables import find_program, find_source


def build_pe(offset: int) -> bytes:
    return (b"MZ" + bytes(58) + struct.pack("<I", offset)).ljust(offset, b"\x00") + b"PE\x00\x00L\x01"


@pytest.mark.parametrize(
    ("head", "detail"),
    [
        (b"\x7fELF\x02\x01\x01", "Native code: ELF"),
        (b"\xcf\xfa\xed\xfe\x07\x00\x00\x01", "Native code: Mach-O"),
        (b"\xfe\xed\xfa\xce", "Native code: Mach-O"),
        (b"\xca\xfe\xba\xbe\x00\x00\x00\x02", "Native code: universal Mach-O"),
        (build_pe(128), "Native code: Windows program or library (PE)"),
        (build_pe(4096)[:2048], "Native code: Windows program or library (PE)"),
    ],
)
def test_native_code_is_identified_by_content(head: bytes, detail: str) -> None:
    finding = find_program(head)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.detail) == (FindingKind.NATIVE_LIBRARY, Severity.MEDIUM, detail)


@pytest.mark.parametrize(
    ("head", "detail"),
    [
        (b"\xca\xfe\xba\xbe\x00\x00\x00\x3d", "Java bytecode"),
        (b"\x00asm\x01\x00\x00\x00", "WebAssembly bytecode"),
        (b"dex\n035\x00", "Dalvik bytecode"),
        (b"BC\xc0\xde", "LLVM bytecode"),
        (b"\x1bLua", "Lua bytecode"),
        (b"\x03\xf3\r\n" + bytes(4), "Python bytecode"),
        (b"#!/bin/sh\nrm -rf /\n", "Script with interpreter /bin/sh"),
        (b"#! /usr/bin/env python3\n", "Script with interpreter /usr/bin/env python3"),
        (b"\xef\xbb\xbf#!/bin/sh", "Script with interpreter /bin/sh"),
    ],
)
def test_bytecode_and_scripts_are_identified_by_content(head: bytes, detail: str) -> None:
    finding = find_program(head)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.detail) == (FindingKind.CODE, Severity.MEDIUM, detail)


def test_python_interpreter_and_its_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    compiled = py_compile.compile(str(tmp_path / "a.py"), str(tmp_path / "a.pyc"))
    assert compiled is not None
    for path in (Path(compiled), Path(sys.executable)):
        with path.open("rb") as file:
            assert find_program(file.read(2048)) is not None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MZ is not a program",
        b"MZ" + b" " * 200,
        b"ab\r\ncd\r\n",
        b"\xca\xfe",
        b"# a comment\n",
        b"#!\n",
        b"\x80\x04\x95",
        b"PK\x03\x04",
        "é\r\n".encode(),
    ],
)
def test_other_content_is_no_program(head: bytes) -> None:
    assert find_program(head) is None


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("modeling_x.py", "Python source: loaders run it with trust_remote_code=True"),
        ("a/Setup.PY", "Python source: loaders run it with trust_remote_code=True"),
        ("demo.ipynb", "Jupyter notebook: no loader runs it"),
        ("run.sh", "Shell script: no loader runs it"),
        ("kernel.cu", "GPU source: no loader runs it"),
        ("run.ps1", "Windows script: no loader runs it"),
    ],
)
def test_source_code_is_identified_by_name(path: str, detail: str) -> None:
    finding = find_source(path)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.detail) == (FindingKind.CODE, Severity.MEDIUM, detail)
    assert find_source("README.md") is find_source("py") is find_source("model.safetensors") is None
