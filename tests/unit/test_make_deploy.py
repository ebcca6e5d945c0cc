"""What `make deploy` offers as answers to its questions."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_OF_MAKE = ("MAKE", "MFLAGS", "GNUMAKEFLAGS", "ARCHITECTURE")
SAVED = """
[default.deploy.parameters]
capabilities = "CAPABILITY_IAM"
parameter_overrides = "Architecture=\\"x86_64\\" NotificationEmail=\\"team@example.com\\" CorsAllowOrigin=\\"\\""

[two.deploy.parameters]
parameter_overrides = "PicklePolicy=\\"off\\""
"""


def list_commands(folder: Path, *options: str) -> list[str]:
    """What `make deploy` would run."""
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "--just-print", "--no-print-directory", "deploy", *options]
    # The tests may have been started by make, whose options are not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_MAKE)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def test_the_first_time_only_the_architecture_is_given(tmp_path: Path) -> None:
    shutil.copy(ROOT / "samconfig.toml", tmp_path)
    assert list_commands(tmp_path)[-1] == "sam deploy --guided --parameter-overrides ' Architecture=arm64'"


@pytest.mark.parametrize(
    ("options", "architecture"), [([], "x86_64"), (["ARCHITECTURE=arm64"], "arm64")], ids=["saved", "given"]
)
def test_saved_answers_are_offered_again(tmp_path: Path, options: list[str], architecture: str) -> None:
    (tmp_path / "samconfig.toml").write_text(SAVED)
    *_, build, deploy = list_commands(tmp_path, *options)
    assert build.startswith(f"MODELHAUL_ARCHITECTURE={architecture} sam build ")
    assert deploy == (
        "sam deploy --guided --parameter-overrides"
        """ 'Architecture="x86_64" NotificationEmail="team@example.com" CorsAllowOrigin="" """
        f"Architecture={architecture}'"
    )
