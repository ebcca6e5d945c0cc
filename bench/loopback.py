"""The C programs of the benchmarks, among them a low-overhead Hub and object store over TLS (native/loopback.c)."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trustme

from bench.servers import NAME, PATH, ROOT
from tests.upstream.content import CHUNK_SIZE, GeneratedContent, read_all

COMMIT = "c" * 40
_SOURCES = Path(__file__).parent / "native"
BUILT = ROOT / ".local" / "benchmarks"


class ProgramMissingError(Exception):
    """A tool to build the programs is missing. The message goes into the report."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Network conditions. `latency` is in seconds before each response. `rate` (of all connections together) and
    `connection_rate` are in bytes per second and direction; 0 is unlimited.
    """

    latency: float = 0
    rate: float = 0
    connection_rate: float = 0


FAST = Shape()


@dataclass(slots=True)
class Loopback:
    """A running server. `counts` (requests, connections, bytes) are available after it has stopped."""

    port: int
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@cache
def build_program(name: str) -> Path:
    """Compile a program and return its path. Raises ProgramMissingError."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ProgramMissingError("This needs a C compiler (on Debian: apt install gcc libssl-dev).")
    BUILT.mkdir(parents=True, exist_ok=True)
    built = BUILT / name
    command = [compiler, "-O2", "-o", str(built), str(_SOURCES / f"{name}.c"), "-lssl", "-lcrypto", "-pthread"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        print(compiled.stderr)
        raise ProgramMissingError(f"{name}.c does not compile. It needs OpenSSL 3 (on Debian: apt install libssl-dev).")
    return built


@cache
def make_certificates() -> tuple[Path, Path, Path]:
    """Create the certificate of a CA, and the certificate and key of the server, as PEM files for this run."""
    BUILT.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = (BUILT / "ca.pem", BUILT / "server.pem", BUILT / "server.key")
    authority.cert_pem.write_to_path(str(files[0]))
    certificate.cert_chain_pems[0].write_to_path(str(files[1]))
    certificate.private_key_pem.write_to_path(str(files[2]))
    return files


@cache
def compute_digest(size: int) -> str:
    """Return the SHA-256 of the generated file of `size` bytes, computed independently of the compared programs."""
    return GeneratedContent(size).sha256


@contextmanager
def start_loopback(size: int, shape: Shape = FAST) -> Iterator[Loopback]:
    """Start a server: a Hub with one file of `size` bytes at PATH, and a store for uploads.

    Raises ProgramMissingError, or RuntimeError if it does not start.
    """
    program = build_program("loopback")
    _, certificate, key = make_certificates()
    block = BUILT / "block"
    if not block.is_file():
        block.write_bytes(read_all(GeneratedContent(CHUNK_SIZE)))
    digest = compute_digest(size)
    model = {"id": NAME, "sha": COMMIT, "private": False, "siblings": [{"rfilename": PATH}]}
    lfs = {"oid": digest, "size": size, "pointerSize": 134}
    tree = [{"type": "file", "path": PATH, "size": size, "oid": "0" * 40, "lfs": lfs}]
    responses = [json.dumps(model), json.dumps(tree)]
    command = [program, certificate, key, block, size, digest, COMMIT, *responses]
    command += [shape.latency * 1000, shape.rate, shape.connection_rate]
    with subprocess.Popen(
        [str(argument) for argument in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        announced = process.stdout.readline()
        if not announced:
            raise RuntimeError("the loopback server did not start")
        loopback = Loopback(json.loads(announced)["port"])
        try:
            yield loopback
        finally:
            process.stdin.close()
            loopback.counts |= json.loads(process.stdout.readline())
