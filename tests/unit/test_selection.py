"""Patterns mean what they mean to huggingface_hub, and a part of a model has an identity of its own."""

from dataclasses import replace

import pytest
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # its __init__ has no __all__
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection, Weights

MODEL = ResolvedModel(Source.HUGGINGFACE, "org/model", "main", "c" * 40)
PATHS = st.lists(st.text("abA/.é-", min_size=1, max_size=8), max_size=8, unique=True)
PATTERNS = st.lists(st.text("abA/.é-*?[]!\\", min_size=1, max_size=6), max_size=4)


@pytest.mark.slow
@settings(max_examples=500)
@given(paths=PATHS, allow=PATTERNS, ignore=PATTERNS)
@example(paths=["onnx/a/b.onnx", "onnx", "x/onnx/a"], allow=["onnx/"], ignore=[])
@example(paths=["a/b", "c"], allow=["a\\"], ignore=[])
@example(paths=["a", "A"], allow=["**"], ignore=["A"])
def test_patterns_take_what_the_hubs_own_client_takes(paths: list[str], allow: list[str], ignore: list[str]) -> None:
    selection = Selection(tuple(allow), tuple(ignore))
    expected = list(filter_repo_objects(paths, allow_patterns=allow or None, ignore_patterns=ignore))
    assert [path for path in paths if selection.matches(path)] == expected


@pytest.mark.parametrize(
    "selection",
    [Selection(), Selection((), (), Weights.ALL), Selection(("*",)), Selection(("*.json", "**"))],
)
def test_a_selection_of_everything_is_the_whole_model(selection: Selection) -> None:
    assert selection.is_whole
    assert replace(MODEL, selection=selection).model_id == MODEL.model_id
    assert replace(MODEL, selection=selection).prefix == f"models/huggingface/org/model/{'c' * 40}/"


def test_the_whole_models_id_is_what_it_was() -> None:
    """It is in records, manifests and addresses of models that were imported before there were parts."""
    assert MODEL.model_id == "e1ac15c5-6f00-5ca4-b2a7-070b9ad69f66"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Selection(("b", "a")), Selection(("a", "b", "a"))),
        (Selection(("onnx/",)), Selection(("onnx/*", "onnx\\"))),
        (Selection(("*", "a"), ("b",)), Selection((), ("b", "b"))),
    ],
)
def test_equal_selections_are_one_model(one: Selection, other: Selection) -> None:
    assert one == other
    assert replace(MODEL, selection=one).model_id == replace(MODEL, selection=other).model_id
    assert replace(MODEL, selection=one).prefix == replace(MODEL, selection=other).prefix


def test_each_selection_is_a_model_of_its_own() -> None:
    selections = [
        WHOLE,
        Selection(("*.json",)),
        Selection((), ("*.json",)),
        Selection(("*.json",), ("*.json",)),
        Selection(("*.json", "*.txt")),
        Selection(("*.json', '*.txt",)),
        Selection(("*.JSON",)),
        Selection((), (), Weights.SAFETENSORS),
        Selection((), (), Weights.PYTORCH),
    ]
    models = [replace(MODEL, selection=selection) for selection in selections]
    assert len({model.model_id for model in models}) == len(models)
    prefixes = {model.prefix for model in models}
    assert len(prefixes) == len(models)
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


def test_it_is_told_in_few_words() -> None:
    many = Selection(tuple(f"{number}-{'x' * 400}" for number in range(100)), ("*.bin",), Weights.SAFETENSORS)
    assert WHOLE.describe() == "all files"
    assert Selection(("b", "a"), ("c",)).describe() == "allow 'a' 'b', ignore 'c'"
    assert many.describe().endswith("and 97 more, ignore '*.bin', weights safetensors")
    assert len(many.describe()) < 500
