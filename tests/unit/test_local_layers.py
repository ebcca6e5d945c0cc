"""The script with which `sam build` makes the layers."""

import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = Path(__file__).resolve().parents[2] / "layers"


NAMES = ["core", "sources", "scanner"]


@pytest.mark.parametrize("layer", NAMES)
def test_a_layer_without_its_requirements_is_not_built(layer: str, tmp_path: Path) -> None:
    script = tmp_path / "build_layer.py"
    script.write_bytes((LAYERS / "build_layer.py").read_bytes())
    (tmp_path / layer).mkdir()

    result = subprocess.run(
        [sys.executable, script, layer, tmp_path / "artifacts"], capture_output=True, text=True, check=False
    )

    assert result.returncode != 0
    assert "requirements.txt is missing" in result.stderr
    assert not (tmp_path / "artifacts").exists()


def test_no_package_is_in_two_layers() -> None:
    names = [
        line.partition("==")[0]
        for layer in NAMES
        for line in (LAYERS / layer / "requirements.txt").read_text().splitlines()
        if "==" in line
    ]
    assert names
    assert len(names) == len(set(names))
