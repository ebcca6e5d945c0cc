"""Programs: native code by its content, source code and scripts by their name or first line."""

import re
from pathlib import PurePosixPath

from modelhaul.domain.findings import Finding, FindingKind, Severity

_SOURCES = {
    "Python source": {".py", ".pyi", ".pyw", ".pyx"},
    "Jupyter notebook": {".ipynb"},
    "Shell script": {".bash", ".csh", ".fish", ".ksh", ".sh", ".zsh"},
    "Windows script": {".bat", ".cmd", ".hta", ".ps1", ".psm1", ".vbs", ".wsf"},
    "JavaScript source": {".cjs", ".js", ".jsx", ".mjs", ".ts", ".tsx"},
    "C or C++ source": {".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp"},
    "GPU source": {".cl", ".cu", ".cuh", ".hip", ".metal", ".ptx"},
    "Go source": {".go"},
    "Java source": {".groovy", ".java", ".kt", ".scala"},
    "Julia source": {".jl"},
    "Lua source": {".lua"},
    "MATLAB source": {".m"},
    "Perl source": {".pl", ".pm"},
    "PHP source": {".php"},
    "R source": {".r"},
    "Ruby source": {".rb"},
    "Rust source": {".rs"},
    "Swift source": {".swift"},
    "Windows shortcut": {".lnk", ".url"},
    "Desktop entry": {".desktop"},
}
_KINDS = {suffix: kind for kind, suffixes in _SOURCES.items() for suffix in suffixes}
_USES = {"Python source": "loaders run it with trust_remote_code=True"}
_DEFAULT_USE = "no loader runs it"
_NATIVE = {
    b"\x7fELF": "ELF",
    b"\xfe\xed\xfa\xce": "Mach-O",
    b"\xce\xfa\xed\xfe": "Mach-O",
    b"\xfe\xed\xfa\xcf": "Mach-O",
    b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\xca\xfe\xba\xbf": "universal Mach-O",
    b"\xbf\xba\xfe\xca": "universal Mach-O",
    b"\xbe\xba\xfe\xca": "universal Mach-O",
    b"\x50\xed\x55\xba": "CUDA",
}
_BYTECODE = {
    b"\x00asm": "WebAssembly",
    b"dex\n": "Dalvik",
    b"\x1bLua": "Lua",
    b"\x1bLJ": "LuaJIT",
    b"BC\xc0\xde": "LLVM",
    b"\xde\xc0\x17\x0b": "LLVM",
}
_FAT_OR_CLASS = b"\xca\xfe\xba\xbe"
_FIRST_CLASS_VERSION = 45  # of Java; Mach-O files have fewer architectures
_PE_POINTER = slice(0x3C, 0x40)
_MAX_PE_OFFSET = 16 * 1024 * 1024  # bytes of a DOS program before the PE header
# Magic numbers of CPython 1.5 to 2.7 and 3.x, little-endian; "\r\n" follows.
_PYTHON = {20121, 50428, 50823, 60202, 60717, *range(62_011, 62_212), *range(3000, 4096)}
_SHEBANG = re.compile(rb"(?:\xef\xbb\xbf)?#![ \t]*([!-~][ -~]{0,80})")


def find_program(head: bytes) -> Finding | None:
    """Return a finding for a program. `head` are the first 2,048 bytes of a file or more, or all."""
    if name := _identify_native(head):
        return Finding(FindingKind.NATIVE_LIBRARY, Severity.MEDIUM, f"Native code: {name}")
    if name := _identify_bytecode(head):
        return Finding(FindingKind.CODE, Severity.MEDIUM, f"{name} bytecode")
    if script := _SHEBANG.match(head):
        return Finding(FindingKind.CODE, Severity.MEDIUM, f"Script with interpreter {script[1].decode().strip()}")
    return None


def find_source(path: str) -> Finding | None:
    """Return a finding for source code, by the file's name."""
    kind = _KINDS.get(PurePosixPath(path).suffix.lower())
    if kind is None:
        return None
    return Finding(FindingKind.CODE, Severity.MEDIUM, f"{kind}: {_USES.get(kind, _DEFAULT_USE)}")


def _identify_native(head: bytes) -> str | None:
    for magic, name in _NATIVE.items():
        if head.startswith(magic):
            return name
    if head.startswith(_FAT_OR_CLASS) and int.from_bytes(head[4:8]) < _FIRST_CLASS_VERSION:
        return "universal Mach-O"
    return "Windows program or library (PE)" if _is_windows_program(head) else None


def _is_windows_program(head: bytes) -> bool:
    if not head.startswith((b"MZ", b"ZM")) or len(head) < _PE_POINTER.stop:
        return False
    offset = int.from_bytes(head[_PE_POINTER], "little")
    signature = head[offset : offset + 4]
    return signature[:2] in {b"PE", b"NE", b"LE", b"LX"} or len(head) <= offset < _MAX_PE_OFFSET


def _identify_bytecode(head: bytes) -> str | None:
    for magic, name in _BYTECODE.items():
        if head.startswith(magic):
            return name
    if head.startswith(_FAT_OR_CLASS):
        return "Java"
    number = int.from_bytes(head[:2], "little")
    return "Python" if head[2:4] == b"\r\n" and number in _PYTHON else None
