"""The reference verifier of OpenSSF Model Signing, which `make test` installs in an environment of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.template.transformed import ROOT

PROGRAM = ROOT / ".local/venvs/model_signing/bin/model_signing"
needs_model_signing = pytest.mark.skipif(
    not PROGRAM.is_file(), reason="model_signing is not installed (`make test` installs it)"
)


def is_accepted(folder: Path, signature: Path, public_key: Path, *options: str | Path) -> bool:
    """Return whether `model_signing verify key` accepts the folder, by default with its default options."""
    command: list[str | Path] = [
        PROGRAM,
        "verify",
        "key",
        folder,
        "--signature",
        signature,
        "--public_key",
        public_key,
        *options,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    output = result.stdout + result.stderr
    assert ("Verification succeeded" in output) == (result.returncode == 0), output
    assert result.returncode == 0 or "Verification failed" in output, output
    return result.returncode == 0
