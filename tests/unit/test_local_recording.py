"""The recording of `make run` that the README shows."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from local.recording import record

ROOT = Path(__file__).parents[2]
RUN = """Installing .venv
PENDING 10 %
DONE 2/2 files 100 %
   2  models/huggingface/org/model/0123456…/
   2  models/huggingface/org/other/89abcde…/
  export MODELHAUL_API_URL=http://127.0.0.1:41234/v1
  export MODELHAUL_API_KEY=s3cr3tkey
Use the API. Its reference, for a browser: http://127.0.0.1:41234/v1/docs
  curl -sSi $MODELHAUL_API_URL/upload/huggingface
Stopping the stack and deleting its data
Stopped.
"""


def read_texts(picture: str) -> str:
    return "".join("".join(ET.fromstring(picture).itertext())).replace("\xa0", " ")


def test_picture_is_the_same_for_each_run() -> None:
    picture = record(RUN)
    shown = read_texts(picture)
    assert "org/model/0000001…/" in shown
    assert "org/other/0000002…/" in shown
    assert "http://127.0.0.1:8001/v1" in shown
    assert not re.search("41234|s3cr3tkey|PENDING|Installing|curl", shown)
    assert "@font-face" not in picture
    other = RUN.replace("41234", "50000").replace("s3cr3tkey", "another").replace("0123456", "fedcba9")
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
