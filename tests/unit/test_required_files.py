import json

import pytest

from modelhaul.domain.required_files import RequiredFiles, find_missing_files

BASE = ["config.json", "tokenizer.json"]
INDEX = "model.safetensors.index.json"


def make_index(*shards: object) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"layer.{n}": shard for n, shard in enumerate(shards)}}).encode()


def find(paths: list[str], index: bytes | None = None, rule: RequiredFiles = RequiredFiles.EQUIVALENTS) -> str:
    return "; ".join(find_missing_files(set(paths), lambda _: index, rule))


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
def test_one_file_of_weights_is_enough(weights: str) -> None:
    assert find([*BASE, weights, "README.md"]) == ""


@pytest.mark.parametrize("prefix", ["model.safetensors", "pytorch_model.bin"])
def test_an_index_with_all_its_shards_is_as_good(prefix: str) -> None:
    assert find([*BASE, f"{prefix}.index.json", "s1", "s2"], make_index("s1", "s2", "s1")) == ""


def test_what_is_missing_is_named() -> None:
    assert find([]).startswith("config.json; tokenizer.json; weights (")
    assert find(["tokenizer.json", "pytorch_model.bin"]) == "config.json"
    assert find([*BASE, INDEX, "s1"], make_index("s1", "s2")) == f"s2 (listed in {INDEX})"
    assert find([*BASE, "sub/pytorch_model.bin"]).startswith("weights (")


@pytest.mark.parametrize(
    "index",
    [b"", b"{", b"[]", b'"x"', b"{}", b'{"weight_map": 3}', b'{"weight_map": [1]}', b"\xff", b"[" * 100_000, None,
     b'{"weight_map": {}}', make_index(1), make_index(["s"])],
)  # fmt: skip
def test_an_index_that_says_nothing_is_no_index(index: bytes | None) -> None:
    assert INDEX in find([*BASE, INDEX, "s1"], index)


def test_strict_holds_to_the_three_names() -> None:
    assert find([*BASE, "model.safetensors"], rule=RequiredFiles.STRICT) == "pytorch_model.bin"
    assert find([*BASE, "pytorch_model.bin"], rule=RequiredFiles.STRICT) == ""
    assert find([], rule=RequiredFiles.STRICT) == "config.json; tokenizer.json; pytorch_model.bin"
