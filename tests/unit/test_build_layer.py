"""The content of layers."""

import json
from pathlib import Path

from layers.build_layer import shorten_descriptions


def test_files_that_share_a_hard_link_with_the_package_cache_stay_as_they_are(tmp_path: Path) -> None:
    cached = tmp_path / "cached.json"
    cached.write_text(json.dumps({"partitions": [{"services": {"s3": {}, "braket": {}}}]}))
    before = cached.read_bytes()
    data = tmp_path / "data"
    data.mkdir()
    (data / "endpoints.json").hardlink_to(cached)
    shorten_descriptions(data)
    assert json.loads((data / "endpoints.json").read_bytes()) == {"partitions": [{"services": {"s3": {}}}]}
    assert cached.read_bytes() == before
