import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelhaul.domain.read_keys import ALL_NAMES, KEY_PATTERN, Scope, check_key, create_key, identify_key, is_key_name

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_a_key_is_random_and_has_the_form_that_hub_clients_send() -> None:
    keys = {create_key("ci", [], None, NOW)[0] for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        assert KEY_PATTERN.fullmatch(key)
        assert key.startswith("hf_")
        assert key[3:].isalnum()
        assert 37 <= len(key) <= 256, "llama.cpp drops other tokens"


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("hf_" + "a" * 37, True),
        ("hf_" + "a" * 253, True),
        ("hf_" + "a" * 36, False),
        ("hf_" + "a" * 254, False),
        ("hf_" + "a" * 40 + "\n", False),
        ("hf_" + "é" * 40, False),
        ("HF_" + "a" * 40, False),
        ("hf_" + "a" * 39 + "-", False),
    ],
)
def test_keys_have_40_to_256_letters_and_digits(text: str, is_valid: bool) -> None:
    assert (KEY_PATTERN.fullmatch(text) is not None) == is_valid


def test_the_record_has_the_digest_of_the_key_instead_of_the_key() -> None:
    key, record = create_key("Jörg's laptop", [Scope.IMPORT], NOW + timedelta(days=1), NOW)
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert (record.digest, record.key_id) == (digest, digest[:16])
    assert identify_key(key) == record.key_id
    assert key[3:] not in repr(record)
    assert (record.name, record.created_at, record.expires_at) == ("Jörg's laptop", NOW, NOW + timedelta(days=1))
    assert record.last_used_on is None


def test_a_key_can_be_limited_to_names() -> None:
    key, record = create_key("ci", [], None, NOW, names=["gpt2", "org/*"])
    assert record.names == ("gpt2", "org/*")
    assert record.key_id == identify_key(key)
    assert check_key(record, key, NOW)
    for names in (ALL_NAMES, (), ("gpt2",), ("org/*", "gpt2"), ("gpt2\norg/*",)):
        assert check_key(replace(record, names=names), key, NOW) == (names == ("gpt2\norg/*",))
    assert create_key("ci", [], None, NOW)[1].names == ALL_NAMES


@pytest.mark.parametrize("names", [[], ["*"] * 21, [""], ["a" * 201], ["a b"], ["gpt2", "a\n"]])
def test_invalid_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="invalid name patterns"):
        create_key("ci", [], None, NOW, names=names)


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        ([], (Scope.READ,)),
        ([Scope.READ], (Scope.READ,)),
        ([Scope.IMPORT], (Scope.READ, Scope.IMPORT)),
        ([Scope.IMPORT, Scope.READ, Scope.IMPORT], (Scope.READ, Scope.IMPORT)),
    ],
)
def test_every_key_may_read(scopes: list[Scope], granted: tuple[Scope, ...]) -> None:
    assert create_key("ci", scopes, None, NOW)[1].scopes == granted


def test_a_key_is_valid_until_it_expires() -> None:
    key, record = create_key("ci", [], NOW + timedelta(seconds=60), NOW)
    assert check_key(record, key, NOW + timedelta(seconds=59.9))
    assert not check_key(record, key, NOW + timedelta(seconds=60))
    lasting, without_expiry = create_key("ci", [], None, NOW)
    assert check_key(without_expiry, lasting, NOW + timedelta(days=10_000))


def test_only_the_whole_key_is_valid() -> None:
    key, record = create_key("ci", [], None, NOW)
    other, _ = create_key("ci", [], None, NOW)
    for wrong in (other, key[:-1], key + "a", key.swapcase(), "", "é", record.digest, record.key_id):
        assert not check_key(record, wrong, NOW)


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("ci", True),
        ("Jörg's laptop 😀", True),
        ("x" * 100, True),
        ("", False),
        (" ", False),
        ("x" * 101, False),
        ("a\nb", False),
        ("a\x00", False),
        ("a\u202eb", False),
        ("a\ud800", False),
    ],
)
def test_names_have_1_to_100_printable_characters(name: str, is_valid: bool) -> None:
    assert is_key_name(name) == is_valid
    if not is_valid:
        with pytest.raises(ValueError, match="invalid name"):
            create_key(name, [], None, NOW)
