"""JSON that is parsed without building objects."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.domain.errors import ObjectGoneError
from modelhaul.domain.json_streams import JsonError, ReadRange, check_object, find_names, list_shards, read_members

LARGE = 5_000_000  # bytes; more than the parser reads at once, and more than one window


def open_bytes(content: bytes) -> tuple[ReadRange, int]:
    return lambda start, end: content[start:end], len(content)


def pad(members: str) -> bytes:
    """Return an object with these members after many others."""
    more = ", ".join(f'"{number}": [{{"content": "{"x" * 100}"}}]' for number in range(LARGE // 100))
    return f"{{{more}, {members}}}".encode()


BROKEN = [
    b"",
    b"null",
    b"[]",
    b"[[]]",
    b"3",
    b"{} {}",
    b"{",
    b"\xff",
    b'{"a": "\xff"}',
    b'{"a":' * 100_000,
    b'{"a": 1,}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_invalid_objects_have_a_reason(content: bytes) -> None:
    for check in (check_object, list_shards):
        with pytest.raises(JsonError, match=r"^[\w ]+$"):
            check(*open_bytes(content))
    with pytest.raises(JsonError):
        list(read_members(open_bytes(content)[0], 0, len(content)))


@pytest.mark.parametrize("broken", ['"a": ]', '"a": "\\x"', '"a": 01', '"a": 1} {', "3", '"a": NaN'])
def test_invalid_large_objects_have_a_reason(broken: str) -> None:
    content = pad(broken)
    with pytest.raises(JsonError, match="parsed as JSON"):
        check_object(*open_bytes(content))
    check_object(*open_bytes(pad('"a": 1e400')))


def test_small_files_may_have_what_python_writes() -> None:
    check_object(*open_bytes(b'{"time_step_limit": [0.0, Infinity], "a": NaN, "a": 2}'))


@pytest.mark.parametrize("build", [lambda members: f"{{{members}}}".encode(), pad], ids=["small", "large"])
def test_names_are_those_of_the_object_itself(build: Callable[[str], bytes]) -> None:
    content = build('"auto_map": {"b": {"c": 1}}, "list": [{"c": "d"}]')
    assert find_names(*open_bytes(content), ("auto_map", "b", "c", "d")) == {"auto_map"}


@pytest.mark.slow
def test_one_text_may_be_no_larger_than_a_window() -> None:
    for value in ("x" * 12_000_000, '\\"' * 6_000_000, "1" * 12_000_000):
        content = b'{"a": "%s"}' % value.encode()
        with pytest.raises(JsonError, match=r"may exceed 4 MiB|2,000 or more digits"):
            check_object(*open_bytes(content))
    check_object(*open_bytes(b'{"a": "%s", "b": "%s"}' % (b"x" * 3_000_000, b"y" * 3_000_000)))


def test_members_come_as_they_are_written() -> None:
    members: dict[str, Any] = {"a": {"b": [1, 2.5, None, {"c": []}]}, "d": "e", "f": True}
    content = b"12345678" + json.dumps(members).encode() + b"  " + b"behind"
    assert list(read_members(open_bytes(content)[0], 8, len(content) - 6)) == list(members.items())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"b": 1, "b": 2}', "has the key 'b' twice in an object"),
        ('[{"b": 1, "b": 2}]', "has the key 'b' twice in an object"),
        ("[" + "0," * 300_000 + "0]", "more than 200,000 nested values"),
        ("[" * 5_000 + "]" * 5_000, "cannot be parsed as JSON"),
    ],
)
def test_invalid_members_have_a_reason(value: str, words: str) -> None:
    content = b'{"a": %s}' % value.encode()
    with pytest.raises(JsonError, match=words):
        list(read_members(open_bytes(content)[0], 0, len(content)))


def test_shards_are_what_the_weight_map_names() -> None:
    index = {"metadata": {"total_size": 3, "weight_map": {"x": "no"}}, "weight_map": {"x": "a", "y": "b", "z": "a"}}
    assert list_shards(*open_bytes(json.dumps(index).encode())) == {"a", "b"}
    assert list_shards(*open_bytes(b'{"weight_map": {}}')) == set()


@pytest.mark.parametrize(
    "weight_map", ["[]", '"x"', "null", '{"x": 1}', '{"x": null}', '{"x": ["a"]}', '{"x": {"a": "b"}}']
)
def test_a_weight_map_is_of_names(weight_map: str) -> None:
    for name in ("weight_map", "metadata"):
        with pytest.raises(JsonError, match="has no weight_map of file names"):
            list_shards(*open_bytes(f'{{"{name}": {weight_map}}}'.encode()))


def test_shards_are_counted() -> None:
    index = json.dumps({"weight_map": {str(number): str(number) for number in range(100_001)}}).encode()
    with pytest.raises(JsonError, match="more than 100,000 shards"):
        list_shards(*open_bytes(index))


def test_read_errors_are_propagated() -> None:
    def fail(start: int, end: int) -> bytes:
        raise ObjectGoneError(f"{start} {end}")

    with pytest.raises(ObjectGoneError):
        check_object(fail, LARGE)


@given(st.binary(max_size=200))
def test_any_content_has_a_report(content: bytes) -> None:
    for check in (check_object, list_shards):
        with suppress(JsonError):
            check(*open_bytes(content))


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(
            st.characters(exclude_categories=["Cs"])), st.lists),
    )
)  # fmt: skip
def test_members_are_what_json_reads(members: dict[str, Any]) -> None:
    content = json.dumps(members).encode()
    assert dict(read_members(open_bytes(content)[0], 0, len(content))) == members


@pytest.mark.parametrize("padding", [0, 4 * 1024 * 1024 - 3000, 8 * 1024 * 1024])
@pytest.mark.parametrize("value", ["{}", "[{}]", '"{}"'])
def test_a_number_of_too_many_digits_is_refused_before_the_parser_sees_it(padding: int, value: str) -> None:
    """ijson's C extension terminates the process for such numbers."""
    texts = ",".join(['"xxxxxxxxxx"'] * (padding // 13))
    content = f'{{"a": [{texts}], "weight_map": {value.format("1" * 4301)}}}'.encode()

    def read(start: int, end: int) -> bytes:
        return content[start:end]

    for call in (
        lambda: list(read_members(read, 0, len(content))),
        lambda: list_shards(read, len(content)),
    ):
        with pytest.raises(JsonError):
            call()


def test_numbers_of_many_digits_are_refused_quickly() -> None:
    content = b'{"a": [' + (b"1" * 1_999 + b",") * 4_000 + b"1]}"
    for _ in read_members(lambda start, end: content[start:end], 0, len(content)):
        pass
