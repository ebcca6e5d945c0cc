"""Patterns of names, compared with fnmatch and with regular expressions."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.name_patterns import MAX_PATTERN, is_name_pattern, matches_any, matches_name

_NAMES = st.text(alphabet="abAB/.-_1", max_size=12)
_PATTERNS = st.text(alphabet="abAB/.-_1***", min_size=1, max_size=12)


@given(pattern=_PATTERNS, name=_NAMES)
def test_a_pattern_matches_as_in_fnmatch(pattern: str, name: str) -> None:
    assert matches_name(pattern, name) == fnmatch.fnmatchcase(name.lower(), pattern.lower())


@given(pattern=st.text(alphabet="ab*", min_size=1, max_size=10), name=st.text(alphabet="ab", max_size=14))
def test_parts_that_overlap_match_as_in_a_regular_expression(pattern: str, name: str) -> None:
    regex = "".join(".*" if c == "*" else re.escape(c) for c in pattern)
    assert matches_name(pattern, name) == (re.fullmatch(regex, name) is not None)


@given(data=st.data(), parts=st.lists(st.text(alphabet="abC/.", max_size=5), min_size=1, max_size=8))
def test_a_pattern_matches_each_name_that_is_made_from_it(data: st.DataObject, parts: list[str]) -> None:
    pattern = "*".join(parts) or "*"
    name = parts[0] + "".join(data.draw(st.text(alphabet="abc/", max_size=4)) + part for part in parts[1:])
    assert matches_name(pattern, name)
    assert matches_name(pattern.swapcase(), name)
    assert matches_name(pattern, name.swapcase())


@given(pattern=st.text(max_size=20), name=st.text(max_size=20))
def test_any_text_is_either_a_pattern_or_matches_nothing(pattern: str, name: str) -> None:
    assert is_name_pattern(pattern) or not matches_name(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*", "org/model"),
        ("*", ""),
        ("**", "a"),
        ("google-bert/*", "google-bert/bert-base-uncased"),
        ("Google-BERT/*", "google-bert/bert-base-uncased"),
        ("org/*-7b", "org/a/b-7b"),
        ("gpt2", "GPT2"),
        ("a*a", "aa"),
        ("*", "org/mod\u00e8le"),
    ],
)
def test_a_pattern_matches(pattern: str, name: str) -> None:
    assert matches_name(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("google-bert/*", "google-bert-evil/model"),
        ("google-bert/*", "google-bert"),
        ("org/model", "org/model-2"),
        ("org/model", "my-org/model"),
        ("a*a", "a"),
        ("org.x/*", "orgax/model"),
        ("org/model", "org/model\n"),
        ("kit/*", "\u212ait/model"),  # the sign of Kelvin, which is a `k` in lower case
        ("org/[a-z]", "org/a"),
        ("org/?", "org/a"),
        ("", ""),
    ],
)
def test_a_pattern_does_not_match(pattern: str, name: str) -> None:
    assert not matches_name(pattern, name)


@pytest.mark.parametrize("text", ["*", "org/model", "a" * MAX_PATTERN, "a_b-c.d/*"])
def test_a_text_is_a_pattern(text: str) -> None:
    assert is_name_pattern(text)


@pytest.mark.parametrize("text", ["", "a" * (MAX_PATTERN + 1), "org/model\n", "a b", "a?", "[a]", "modèle", "a,b"])
def test_a_text_is_no_pattern(text: str) -> None:
    assert not is_name_pattern(text)


def test_a_name_matches_any_of_several_patterns() -> None:
    assert matches_any(["gpt2", "org/*"], "org/model")
    assert not matches_any(["gpt2", "org/*"], "other/model")
    assert not matches_any([], "org/model")


def test_many_wildcards_need_linear_time() -> None:
    # A backtracking search would need more time than there is.
    pattern = ("a*" * (MAX_PATTERN // 2))[: MAX_PATTERN - 1] + "b"
    assert not matches_name(pattern, "a" * 100_000)
    assert matches_name("*a" * (MAX_PATTERN // 2), "a" * 100_000)
