"""The recording of `make run` that the README shows."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from local.recording import record

ROOT = Path(__file__).parents[2]
RUN = """Installing .venv
The API is http://127.0.0.1:41234/v1, its key is in x-api-key: s3cr3tkey
  export MODELHAUL_API_URL=http://127.0.0.1:41234/v1 MODELHAUL_API_KEY=s3cr3tkey
PENDING 10 %
DONE org/model at 0123456789abcdef0123456789abcdef01234567
      1,024  models/huggingface/org/model/config.json
      2,048  models/huggingface/org/model/model.safetensors
        512  manifests/6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55.json
Stopped.
"""


def read_texts(picture: str) -> str:
    return "".join("".join(ET.fromstring(picture).itertext())).replace("\xa0", " ")


def test_picture_is_the_same_for_each_run() -> None:
    picture = record(RUN)
    shown = read_texts(picture)
    assert "DONE org/model at 0000001…" in shown
    assert "model.safetensors" in shown
    assert "1 more files" in shown
    assert not re.search("41234|s3cr3tkey|6f1c9f3e|PENDING|Installing|config.json", shown)
    assert "@font-face" not in picture
    other = (
        RUN.replace("41234", "50000").replace("s3cr3tkey", "another").replace("0123456789abcdef", "fedcba9876543210")
    )
    assert record(other) == picture


@pytest.mark.parametrize(
    "output", ["", RUN.replace("Stopped.", ""), RUN.replace("DONE", "FAILED"), RUN + "import failed"]
)
def test_failed_run_has_no_picture(output: str) -> None:
    with pytest.raises(ValueError, match="failed or was interrupted"):
        record(output)


def test_documented_picture_has_no_machine_names_and_keys() -> None:
    picture = (ROOT / "docs" / "make-run.svg").read_text()
    assert "DONE" in read_texts(picture)
    assert str(ROOT) not in picture
    assert not re.search(r"hf_\w{20}", picture)
    assert not re.search(r"@font-face|https?://(?!127\.0\.0\.1|www\.w3\.org)", picture)
