import hashlib

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from modelhaul.domain.hub_names import build_hub_id, derive_commit, describe_pointer, is_hub_id
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul_sources.lfs import POINTER_SIZES, parse_pointer
from modelhaul_sources.lfs import Pointer as ParsedPointer

# Few characters, so that names that could have the same result are frequent.
_NAMES = st.text("aA0b._-", min_size=1, max_size=8) | st.text("aB1.-_", min_size=90, max_size=100)
_ENDS = st.sampled_from(["", ".git", ".0123456789ab", ".0123456789AB", "__a", ".local"])
_PARTS = st.builds(lambda name, end: name + end, _NAMES, _ENDS)
_GITHUB = st.tuples(st.just(Source.GITHUB), st.builds(lambda owner, name: f"{owner}/{name}", _PARTS, _PARTS))
_LOCAL = st.tuples(st.just(Source.LOCAL), st.lists(_PARTS, min_size=1, max_size=3).map("/".join))
_MODELS = _GITHUB | _LOCAL


@pytest.mark.parametrize(
    ("source", "name", "hub_id"),
    [
        (Source.HUGGINGFACE, "google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        (Source.HUGGINGFACE, "gpt2", "gpt2"),
        (Source.GITHUB, "Org/llama-3.1_v2", "github.Org/llama-3.1_v2"),
        (Source.LOCAL, "bert", "archive.local/bert"),
        (Source.LOCAL, "Team/llama-3.1", "archive.local/Team__llama-3.1"),
        (Source.LOCAL, "a/b/c", "archive.local/a__b__c"),
        (Source.LOCAL, "a_b.c", "archive.local/a_b.c"),
        (Source.LOCAL, "a__b", "archive.local/a__b.63e5c1c455d0"),
        (Source.LOCAL, "A__B", "archive.local/A__B.63e5c1c455d0"),
        (Source.LOCAL, "x--1.git", "archive.local/x-1.git.{}"),
        (Source.LOCAL, "x.0123456789ab", "archive.local/x.0123456789ab.{}"),
        (Source.GITHUB, "org/.github", "github.org/github.{}"),
        (Source.GITHUB, "old--org-/a..b", "github.old-org/a.b.{}"),
        (Source.GITHUB, "---/---", "github.model/model.{}"),
        (Source.GITHUB, f"org/{'x' * 97}", f"github.org/{'x' * 83}.{{}}"),
    ],
)
def test_every_model_has_a_name_for_hub_clients(source: Source, name: str, hub_id: str) -> None:
    digest = hashlib.sha256(name.lower().encode()).hexdigest()[:12]
    assert ResolvedModel(source, name, "main", "0" * 40).hub_id == hub_id.format(digest)


@given(_MODELS)
def test_hub_clients_accept_the_name(model: tuple[Source, str]) -> None:
    hub_id = build_hub_id(*model)
    validate_repo_id(hub_id)
    assert is_hub_id(hub_id)
    assert all(len(part) <= 96 and part[0].isalnum() and part[-1].isalnum() for part in hub_id.split("/"))
    assert "." in hub_id.split("/")[0], "names of the Hub have no dot in the namespace"


@given(_MODELS, _MODELS)
@example((Source.LOCAL, "a/b"), (Source.LOCAL, "a__b"))
@example((Source.LOCAL, "a_/b"), (Source.LOCAL, "a/_b"))
@example((Source.LOCAL, "a--b"), (Source.LOCAL, "a-b"))
@example((Source.GITHUB, "a-/b"), (Source.GITHUB, "a/b"))
@example((Source.GITHUB, "-/b"), (Source.GITHUB, "_/b"))
def test_different_models_have_different_names_in_any_case(a: tuple[Source, str], b: tuple[Source, str]) -> None:
    is_same = (a[0], a[1].lower()) == (b[0], b[1].lower())
    assert (build_hub_id(*a).lower() == build_hub_id(*b).lower()) == is_same


@given(_MODELS)
def test_a_name_that_looks_like_a_changed_one_is_changed(model: tuple[Source, str]) -> None:
    source, name = model
    namespace, _, repository = build_hub_id(source, name).partition("/")
    forged = f"{namespace.removeprefix('github.')}/{repository}" if source is Source.GITHUB else repository
    if forged != name:
        assert build_hub_id(source, forged).lower() != f"{namespace}/{repository}".lower()


@given(st.text("ab-._/", max_size=12) | st.text(max_size=5) | st.text("a-", min_size=90, max_size=200))
@example("a\n")
@example("a/b.git")
@example("é")
def test_names_are_valid_as_for_hub_clients(text: str) -> None:
    try:
        validate_repo_id(text)
        accepted = True
    except HFValidationError:
        accepted = False
    assert is_hub_id(text) == accepted


def test_the_commit_of_an_archive_is_derived_from_its_import() -> None:
    first, second = (derive_commit(ResolvedModel(Source.LOCAL, "a", task, task)) for task in ("task-1", "task-2"))
    assert first == hashlib.sha1(b"modelhaul:task-1").hexdigest()
    assert first != second
    for source in (Source.HUGGINGFACE, Source.GITHUB):
        assert derive_commit(ResolvedModel(source, "a/b", "main", "f" * 40)) == "f" * 40


@given(st.binary(max_size=3), st.integers(0, 10**15))
def test_a_pointer_is_as_git_lfs_writes_it(content: bytes, size: int) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = describe_pointer(sha256, size)
    assert parse_pointer(pointer.content) == ParsedPointer(sha256, size)
    assert len(pointer.content) in POINTER_SIZES


def test_a_pointer_has_its_git_blob_id() -> None:
    # `printf … | git hash-object --stdin` for the pointer of an empty file.
    assert describe_pointer(hashlib.sha256().hexdigest(), 0).oid == "fc8e42b32efb9a9bf3ae0234a18a948e499490f8"
