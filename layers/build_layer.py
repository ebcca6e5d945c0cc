"""Build one layer: `build_layer.py core|sources|scanner ARTIFACTS_DIR`, run by the layer's Makefile for `sam build`.

The layer holds what its requirements.txt pins and its own package, all compiled: a cold start without .pyc
files takes twice as long. MODELHAUL_ARCHITECTURE says what it is for: arm64 (unless told) or x86_64 for
Lambda, host for the local stack, whose functions run on this machine's Python.
"""

import compileall
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

LAYERS = Path(__file__).resolve().parent
PACKAGES = {"core": "modelhaul", "sources": "modelhaul_sources", "scanner": "modelhaul_scanner"}
MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
# 22 MB of service descriptions, of which the functions use eight.
BOTOCORE_SERVICES = {"dynamodb", "events", "kms", "lambda", "s3", "secretsmanager", "sqs", "ssm", "sts"}


def install_requirements(requirements: Path, target: Path, architecture: str) -> None:
    """Install the pinned wheels; the file names every one, so that nothing else is looked for."""
    uv = shutil.which("uv")
    tool = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "install", "--no-compile"]
    command = [
        *tool, "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.13",
        *(["--python", sys.executable] if uv else []), *list_platform_options(architecture, bool(uv)),
        "--target", str(target), "--requirement", str(requirements),
    ]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"the packages of {requirements} could not be installed (see above)")


def list_platform_options(architecture: str, uv: bool) -> list[str]:
    if architecture == "host":
        return []
    machine = MACHINES[architecture]
    if uv:
        return [f"--python-platform={machine}-manylinux_2_28"]
    return [
        "--implementation=cp",
        f"--platform=manylinux_2_28_{machine}",
        f"--platform=manylinux2014_{machine}",
    ]


def drop_unused(target: Path) -> None:
    """Remove what no function reads: other services' descriptions, command lines, the packages' own tests."""
    for service in target.glob("botocore/data/*/"):
        if service.name not in BOTOCORE_SERVICES:
            shutil.rmtree(service)
    for folder in [target / "bin", *target.glob("*/tests/")]:
        shutil.rmtree(folder, ignore_errors=True)
    if (data := target / "botocore" / "data").is_dir():
        shorten_descriptions(data)


def shorten_descriptions(data: Path) -> None:
    """Leave of botocore's descriptions what a client reads. Each is parsed at a cold start, and most of it is prose."""
    for path in [*data.glob("*/*/*.json"), *data.glob("*/*/*.json.gz")]:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        path.unlink()
        if not path.name.startswith("examples-"):
            write_json(path.with_name(path.name.removesuffix(".gz")), drop_documentation(json.loads(text)))
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {s: v for s, v in partition["services"].items() if s in BOTOCORE_SERVICES}
    write_json(data / "endpoints.json", endpoints)


def drop_documentation(description: Any) -> Any:
    """With the texts empty, since botocore looks for some; what is called so and has a description of its own stays."""
    if isinstance(description, dict):
        return {
            key: "" if key == "documentation" and isinstance(value, str) else drop_documentation(value)
            for key, value in description.items()
        }
    return [drop_documentation(value) for value in description] if isinstance(description, list) else description


def write_json(path: Path, content: Any) -> None:
    # The file may be a hard link to the package cache, and to other environments.
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False))


def build_layer(layer: str, artifacts: Path, architecture: str) -> None:
    if architecture not in (*MACHINES, "host"):
        sys.exit(f"{architecture!r} is no processor that layers are built for: {', '.join(MACHINES)}")
    requirements = LAYERS / layer / "requirements.txt"
    if not requirements.is_file():
        sys.exit(f"{requirements} is missing: the layer would be built without its packages")
    target = artifacts / "python"
    install_requirements(requirements, target, architecture)
    drop_unused(target)
    package = PACKAGES[layer]
    shutil.copytree(LAYERS / layer / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    compiled = compileall.compile_dir(
        target,
        quiet=1,
        workers=0,
        stripdir=str(target),
        prependdir="/opt/python",
        # A layer's ZIP changes the files' times, which would make Python compile again at each cold start.
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        sys.exit("a module of the layer does not compile")


if __name__ == "__main__":
    build_layer(sys.argv[1], Path(sys.argv[2]), os.environ.get("MODELHAUL_ARCHITECTURE", "arm64"))
