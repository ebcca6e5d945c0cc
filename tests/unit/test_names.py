import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.errors import ArchiveRefusedError, InvalidReferenceError
from modelhaul.domain.names import check_model_name, clean_name, name_models


@pytest.mark.parametrize("name", ["bert", "Bert-base_uncased.v2", "org/model", "a/b/c", "7b", "x" * 96])
def test_a_legal_name_stays_as_it_is(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/../b",
        "a..b",
        ".hidden",
        "-x",
        "x-",
        "a b",
        "modèle",
        "a\\b",
        "a\n",
        "a/b/c/d",
        "x" * 97,
        "a%2fb",
        "a?b",
        "a\x00",
    ],
)
def test_an_illegal_name_is_refused_with_the_field(name: str) -> None:
    with pytest.raises(InvalidReferenceError) as refused:
        check_model_name(name)
    assert refused.value.part == "model_name"


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("My Model (v2)", "My-Model-v2"),
        ("modèle", "modele"),
        ("  a  b ", "a-b"),
        ("a...b", "a.b"),
        ("_private_", "private"),
        ("ﬁne", "fine"),
        ("模型-bert", "bert"),
    ],
)
def test_directories_are_cleaned_into_names(directory: str, name: str) -> None:
    assert clean_name(directory) == name


@pytest.mark.parametrize("directory", ["模型", "...", "---", "", "x" * 97])
def test_what_leaves_nothing_legal_is_refused(directory: str) -> None:
    with pytest.raises(InvalidReferenceError):
        clean_name(directory)


@given(st.text(max_size=120))
def test_whatever_is_cleaned_is_legal(text: str) -> None:
    try:
        name = clean_name(text)
    except InvalidReferenceError:
        return
    assert check_model_name(name) == name
    assert clean_name(name) == name


def test_one_model_is_named_by_the_caller_else_by_its_directory_else_by_the_archive() -> None:
    assert name_models(["a"], model_name="mine", file_name="x.zip") == {"a": "mine"}
    assert name_models(["a"], model_name=None, file_name="x.zip") == {"a": "a"}
    assert name_models([""], model_name="mine", file_name="x.zip") == {"": "mine"}
    assert name_models([""], model_name=None, file_name="dir/My models.ZIP") == {"": "My-models"}


def test_several_are_named_by_their_directories_below_the_callers_name() -> None:
    assert name_models(["a", "b"], model_name="mine", file_name="x.zip") == {"a": "mine/a", "b": "mine/b"}
    assert name_models(["a", "b"], model_name=None, file_name="x.zip") == {"a": "a", "b": "b"}


@pytest.mark.parametrize("pair", [("a b", "a-b"), ("Bert", "bert"), ("é", "e")])
def test_two_directories_of_one_name_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ArchiveRefusedError) as refused:
        name_models(pair, model_name=None, file_name="x.zip")
    assert refused.value.reason == "ambiguous-names"


def test_the_callers_prefix_and_a_directory_must_fit_together() -> None:
    with pytest.raises(InvalidReferenceError):
        name_models(["a", "b"], model_name="x/y/z", file_name="x.zip")
