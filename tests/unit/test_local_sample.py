"""The sample archive is what the pipeline and other tools take for two models."""

import io
import json
import math
import struct
import zipfile

import pytest

from local.sample import build_sample_archive
from tests.fakes.deployment import Deployment


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_its_weights_are_safetensors(name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(build_sample_archive())) as archive:
        weights = archive.read(f"{name}/model.safetensors")
        assert json.loads(archive.read(f"{name}/config.json"))["model_type"] == name.removeprefix("tiny-")
        assert json.loads(archive.read(f"{name}/tokenizer.json"))["model"]["vocab"]
    (length,) = struct.unpack_from("<Q", weights)
    header = json.loads(weights[8 : 8 + length])
    tensors = [tensor for key, tensor in header.items() if key != "__metadata__"]
    end = 0
    for tensor in tensors:
        assert tensor["dtype"] == "F32"
        assert tensor["data_offsets"] == [end, end + 4 * math.prod(tensor["shape"])]
        end = tensor["data_offsets"][1]
    assert len(weights) == 8 + length + end
    assert length % 8 == 0


def test_it_is_always_the_same_and_gives_two_models() -> None:
    assert build_sample_archive() == build_sample_archive()
    deployment = Deployment()
    task = deployment.post(build_sample_archive(), "sample")
    deployment.run()
    models = deployment.ledger.find_models(deployment.find_task(task.id).model_ids)
    assert [(m.resolved.name, m.status) for m in models] == [
        ("sample/tiny-bert", "READY"),
        ("sample/tiny-gpt2", "READY"),
    ]
