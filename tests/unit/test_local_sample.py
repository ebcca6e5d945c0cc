"""The sample archive contains two valid models for the pipeline and other tools."""

import io
import json
import math
import struct
import zipfile
from pathlib import Path

import pytest

from local.sample import build_sample_archive, write_sample_archive
from tests.fakes.deployment import Deployment


def open_sample() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(build_sample_archive()))


def reject_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_weights_are_valid_safetensors(name: str) -> None:
    """See https://github.com/huggingface/safetensors#format."""
    with open_sample() as archive:
        weights = archive.read(f"{name}/model.safetensors")
    (length,) = struct.unpack_from("<Q", weights)
    text = weights[8 : 8 + length]
    assert text.startswith(b"{")
    assert length % 8 == 0
    header = json.loads(text, object_pairs_hook=reject_duplicates)
    assert header.pop("__metadata__") == {"format": "pt"}
    end = 0
    for tensor in header.values():
        assert tensor["dtype"] == "F32"
        assert tensor["data_offsets"] == [end, end + 4 * math.prod(tensor["shape"])]
        end = tensor["data_offsets"][1]
    assert len(weights) == 8 + length + end
    values = struct.unpack_from(f"<{end // 4}f", weights, 8 + length)
    assert len(set(values)) > 50
    assert all(-1 < value < 1 for value in values)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_tokenizer_and_configuration_have_the_same_vocabulary(name: str) -> None:
    with open_sample() as archive:
        config = json.loads(archive.read(f"{name}/config.json"))
        model = json.loads(archive.read(f"{name}/tokenizer.json"))["model"]
    assert config["model_type"] == name.removeprefix("tiny-")
    assert sorted(model["vocab"].values()) == list(range(config["vocab_size"]))
    assert model["unk_token"] in model["vocab"]


def test_one_model_is_deflated_and_one_stored() -> None:
    with open_sample() as archive:
        assert archive.testzip() is None
        methods = {(i.filename.partition("/")[0], i.compress_type) for i in archive.infolist()}
    assert methods == {("tiny-bert", zipfile.ZIP_DEFLATED), ("tiny-gpt2", zipfile.ZIP_STORED)}


def test_archive_is_reproducible(tmp_path: Path) -> None:
    with open_sample() as archive:
        dates = {entry.date_time for entry in archive.infolist()}
    assert dates == {(2026, 1, 1, 0, 0, 0)}
    path = write_sample_archive(tmp_path)
    assert path == tmp_path / "sample.zip"
    assert path.read_bytes() == build_sample_archive()


def test_pipeline_imports_two_models() -> None:
    deployment = Deployment()
    task = deployment.post(build_sample_archive(), "sample")
    deployment.run()
    models = deployment.database.models.find_models(deployment.find_task(task.id).model_ids)
    assert [(m.resolved.name, m.status) for m in models] == [
        ("sample/tiny-bert", "READY"),
        ("sample/tiny-gpt2", "READY"),
    ]
