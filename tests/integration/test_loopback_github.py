"""The loopback GitHub answers in the shapes of GitHub's own OpenAPI description."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.upstream import github as upstream
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.git_repository import Entry, RepositoryMaker, Submodule, Symlink
from tests.upstream.git_tools import LfsServer
from tests.upstream.github import LoopbackGitHub

SCHEMAS: dict[str, Any] = json.loads((Path(upstream.__file__).parent / "github_schemas.json").read_text())
FILES: dict[str, Entry] = {"a/b.txt": b"text", "link": Symlink("a"), "module": Submodule("2" * 40)}


@pytest.fixture(scope="module")
def github(lfs_server: LfsServer, repository_maker: RepositoryMaker) -> Iterator[LoopbackGitHub]:
    with LoopbackGitHub(lfs_server) as server:
        server.add_repository(repository_maker.make("o/r", {"main": FILES}, old_names=["o/old"]))
        server.add_repository(repository_maker.make("o/empty", {}))
        server.add_repository(repository_maker.make("o/blocked", {"main": FILES}, blocked=403))
        yield server


def get(github: LoopbackGitHub, path: str) -> requests.Response:
    return requests.get(f"{github.api_url}{path}", allow_redirects=False, timeout=10)


@pytest.mark.parametrize(
    ("path", "status", "schema"),
    [
        ("/repos/o/r", 200, "repository"),
        ("/repos/O/R", 200, "repository"),
        ("/repos/o/old", 301, "moved"),
        ("/repos/o/none", 404, "error"),
        ("/repos/o/blocked", 403, "forbidden"),
        ("/repos/o/r/git/trees/main", 200, "tree"),
        ("/repos/o/r/git/trees/main?recursive=1", 200, "tree"),
        ("/repos/o/r/git/trees/none", 404, "error"),
        ("/repos/o/empty/git/trees/main", 409, "conflict"),
        ("/repos/o/empty/commits/main", 409, "conflict"),
        ("/repos/o/r/commits/none", 422, "unprocessable"),
    ],
)
def test_answers_have_githubs_shapes(github: LoopbackGitHub, path: str, status: int, schema: str) -> None:
    answer = get(github, path)
    assert answer.status_code == status
    Draft202012Validator(SCHEMAS[schema]).validate(answer.json())
    assert answer.headers["x-ratelimit-remaining"].isdigit()
    assert answer.json(), "nothing is valid by being empty"


def test_a_blob_has_githubs_shape(github: LoopbackGitHub) -> None:
    (entry,) = [
        e for e in get(github, "/repos/o/r/git/trees/main?recursive=1").json()["tree"] if e["path"] == "a/b.txt"
    ]
    answer = get(github, f"/repos/o/r/git/blobs/{entry['sha']}")
    Draft202012Validator(SCHEMAS["blob"]).validate(answer.json())
    assert answer.json()["size"] == entry["size"] == 4


def test_the_kinds_of_entries_are_gits(github: LoopbackGitHub) -> None:
    tree = get(github, "/repos/o/r/git/trees/main?recursive=1").json()["tree"]
    assert {e["path"]: (e["mode"], e["type"]) for e in tree} == {
        "a": ("040000", "tree"),
        "a/b.txt": ("100644", "blob"),
        "link": ("120000", "blob"),
        "module": ("160000", "commit"),
    }


def test_a_rate_limit_is_an_error_in_githubs_shape(github: LoopbackGitHub) -> None:
    github.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=60, times=1))
    answer = get(github, "/repos/o/r")
    assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (403, "0")
    Draft202012Validator(SCHEMAS["error"]).validate(answer.json())
