"""Make the files beside this one: `python make_checkpoints.py`, with torch and numpy, which the tests do not need.

Those that are committed are by torch 2.13.0 (CPU) and numpy 2.4.6. Each comes as programs write it, and in `hostile/`
with a call of os.system in it. `weights_only.txt` is what torch's own loader lets a checkpoint import.
"""

import collections
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
from torch._weights_only_unpickler import _get_allowed_globals  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent


class Call:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def build_state_dict(dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Embedding(8, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 8, bias=False))
    state: dict[str, Any] = model.to(dtype).state_dict()
    return state


def build_tied() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Embedding(8, 4), torch.nn.Linear(4, 8, bias=False))
    model[1].weight = model[0].weight
    state: dict[str, Any] = model.state_dict()
    return state


def build_training_state() -> dict[str, Any]:
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "loss": 0.25,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [{"step": 1, "names": ("a", "ü")}, collections.OrderedDict(b=None, c=True)],
        "seen": {1, 2},
        "shape": torch.Size([4, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "rng": torch.get_rng_state(),
        "version": torch.__version__,
    }


def build_odd_tensors() -> dict[str, Any]:
    base = torch.arange(12, dtype=torch.float32)
    return {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": base[2:8].view(2, 3).t(),
        "base": base,
        "empty": torch.empty(0),
        "scalar": torch.tensor(1.5),
        "bool": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j]),
        "float8": torch.ones(4).to(torch.float8_e4m3fn),
        "uint16": torch.ones(2, dtype=torch.uint16),
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }


def build_numpy() -> dict[str, Any]:
    return {"weight": np.arange(4, dtype=np.float32), "scale": np.float64(0.5), "names": np.array(["a", "b"])}


def write_torch(path: Path, content: dict[str, Any], *, legacy: bool = False) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def write_shards(folder: Path, extra: dict[str, Any]) -> None:
    shards: dict[str, dict[str, Any]] = {}
    weight_map = {}
    for number, (name, tensor) in enumerate(build_state_dict(torch.bfloat16).items(), 1):
        file = f"pytorch_model-{number:05}-of-00004.bin"
        shards[file] = {name: tensor.clone()}
        weight_map[name] = file
    *_, last = shards.values()
    last.update(extra)
    for file, content in shards.items():
        write_torch(folder / file, content)
    index = {"metadata": {"total_size": 144}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_all(folder: Path, extra: dict[str, Any]) -> None:
    """`extra` is in each of them."""
    shutil.rmtree(folder / "sharded", ignore_errors=True)
    (folder / "sharded").mkdir(parents=True)
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        write_torch(folder / f"{name}.bin", build_state_dict(dtype) | extra)
        write_torch(folder / f"{name}-legacy.bin", build_state_dict(dtype) | extra, legacy=True)
    write_torch(folder / "tied.bin", build_tied() | extra)
    write_torch(folder / "tied-legacy.bin", build_tied() | extra, legacy=True)
    write_torch(folder / "training.ckpt", build_training_state() | extra)
    write_torch(folder / "odd-tensors.pt", build_odd_tensors() | extra)
    write_torch(folder / "numpy.pth", build_numpy() | extra)
    (folder / "numpy.pkl").write_bytes(pickle.dumps(build_numpy() | extra, 5))
    np.save(folder / "objects.npy", np.array([{"a": 1, **extra}, None], dtype=object), allow_pickle=True)
    np.savez(folder / "arrays.npz", a=np.ones(4, np.float32), b=np.array([extra or "plain"], dtype=object))
    write_shards(folder / "sharded", extra)


if __name__ == "__main__":
    write_all(HERE, {})
    write_all(HERE / "hostile", {"call": Call()})
    (HERE / "weights_only.txt").write_text("\n".join(sorted(_get_allowed_globals())) + "\n")
