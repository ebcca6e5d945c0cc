"""Routes of the Hub read API: names and paths of any characters arrive as they are, and reach only published files."""

import contextlib
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.keys import is_path, manifest_key
from modelhaul.domain.models import Source
from modelhaul.entrypoints.hub_api import read_hub_request
from modelhaul.hub.errors import HubError, InvalidNameError
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.hub.routes import Route, RouteKind, find_route
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.hub_events import BASE_URLS, GATEWAYS, build_event
from tests.weights import wrap_weights

NAME = "org/model"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": wrap_weights(b"tiny"),
    "a b/50% #?+&=.txt": b"odd",
    "x%2Fy/%2e%2e/%00.txt": b"encoded",
    "Grüße/日本.txt": b"unicode",
}
CHARACTERS = st.sampled_from("ab/.%#?+&= ;:\\\"'<>~\x00\n\u00e9\u65e5\U0001f600") | st.characters(codec="utf-8")
PATHS = st.text(CHARACTERS, min_size=1, max_size=40).filter(is_path)
ENCODERS: list[Callable[[str], str]] = [quote, lambda path: quote(path, safe="")]
HOSTILE = [
    "..",
    "../manifests/x.json",
    "%2e%2e/%2e%2e/config.json",
    "%2e%2e%2fconfig.json",
    "..%2f..%2fmodels/x",
    "%252e%252e/config.json",
    "config.json%00",
    "config.json%00.txt",
    "./config.json",
    "/config.json",
    "a%20b/../config.json",
    "%ff%fe",
    "config.json/",
    "config.json%2f",
    "CONFIG.JSON",
    "x%252Fy",
    "..\\config.json",
]


@given(path=PATHS, encode=st.sampled_from(ENCODERS), kind=st.sampled_from(["resolve", "raw"]))
def test_a_path_arrives_as_it_is(path: str, encode: Callable[[str], str], kind: str) -> None:
    route = find_route("GET", f"{NAME}/{kind}/main/{encode(path)}")
    assert (route.kind, route.repo_id, route.split(["main"])) == (kind, NAME, ("main", path))
    tree = find_route("GET", f"api/models/{NAME}/tree/main/{encode(path)}")
    assert (tree.kind, tree.repo_id, tree.split([])) == (RouteKind.TREE, NAME, ("main", path))


@given(revision=PATHS.filter(lambda revision: not revision.startswith("refs/")), path=PATHS)
def test_a_revision_with_encoded_slashes_arrives_as_it_is(revision: str, path: str) -> None:
    encoded = quote(revision, safe="")
    expected = (revision, path)
    assert find_route("HEAD", f"{NAME}/resolve/{encoded}/{quote(path)}").split([revision]) == expected
    if "/" in revision:
        assert find_route("HEAD", f"{NAME}/resolve/{encoded}/{quote(path)}").split([]) == expected
    # MiniStack decodes the slashes.
    assert find_route("HEAD", f"{NAME}/resolve/{quote(revision)}/{quote(path)}").split([revision, "b"]) == expected
    for route in (f"revision/{encoded}", f"revision/{quote(revision)}"):
        assert find_route("GET", f"api/models/{NAME}/{route}").split([]) == (revision, "")
    assert find_route("POST", f"api/models/{NAME}/paths-info/{encoded}").split([]) == (revision, "")


@pytest.mark.parametrize(
    ("path", "repo_id", "kind"),
    [
        ("api/models/gpt2", "gpt2", RouteKind.INFO),
        ("api/models/gpt2/tree/main", "gpt2", RouteKind.TREE),
        ("api/models/gpt2/tree/main/tree/main", "gpt2", RouteKind.TREE),
        ("api/models/org/tree", "org/tree", RouteKind.INFO),
        ("api/models/org/refs/refs", "org/refs", RouteKind.REFS),
        ("api/models/gpt2/refs", "gpt2", RouteKind.REFS),
        ("gpt2/resolve/main/config.json", "gpt2", RouteKind.RESOLVE),
        ("org/resolve/resolve/main/config.json", "org/resolve", RouteKind.RESOLVE),
        ("org/name/raw/main/resolve/x/y", "org/name", RouteKind.RAW),
        ("org%2Fname/resolve/main/x", "org/name", RouteKind.RESOLVE),
        ("api/models/", "", RouteKind.LIST),
    ],
)
def test_names(path: str, repo_id: str, kind: RouteKind) -> None:
    route = find_route("GET", path)
    assert (route.repo_id, route.kind) == (repo_id, kind)


@given(before=st.sampled_from(["", "api/models/"]), path=PATHS)
def test_a_moved_route_keeps_its_path(before: str, path: str) -> None:
    action = "tree" if before else "resolve"
    route = find_route("GET", f"{before}old/{action}/main/{quote(path)}")
    assert route.relocate("new/name") == f"{before}new/name/{action}/main/{quote(path)}"


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    path=st.text(max_size=60) | st.text("api/models.%0-x", max_size=60),
)
def test_any_path_is_a_route_or_an_error(method: str, path: str) -> None:
    with contextlib.suppress(HubError):
        assert isinstance(find_route(method, path), Route)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": FILES}}))
    deployment.submit(NAME, source=Source.HUGGINGFACE)
    deployment.run()
    return deployment


@given(
    gateway=st.sampled_from(GATEWAYS),
    before=st.sampled_from(
        [f"{NAME}/resolve/main/", f"{NAME}/raw/main/", f"api/models/{NAME}/tree/main/", f"{NAME}/", ""]
    ),
    tail=st.sampled_from(HOSTILE)
    | st.sampled_from(sorted(FILES)).flatmap(
        lambda path: st.sampled_from([quote(path), quote(path, safe=""), quote(quote(path)), quote_plus(path), path])
    )
    | st.text(CHARACTERS, max_size=30),
    method=st.sampled_from(["GET", "HEAD"]),
)
@example(gateway="aws", before=f"{NAME}/resolve/main/", tail="x%252Fy/%252e%252e/%2500.txt", method="GET")
@settings(max_examples=300)
def test_only_published_files_are_reached(
    deployment: Deployment, gateway: str, before: str, tail: str, method: str
) -> None:
    (model,) = deployment.tables.models.values()
    allowed = {manifest_key(model.model_id), *(model.resolved.prefix + path for path in FILES)}

    class Store:
        """Allows reading of these keys only."""

        signed: list[str] = []  # noqa: RUF012 - of one example

        def read(self, key: str, start: int, end: int) -> bytes:
            assert key in allowed
            return deployment.store.read(key, start, end)

        def sign_read(self, key: str, *, seconds: int) -> str:
            assert key in allowed
            self.signed.append(key)
            return "https://bucket.example/signed"

    database = deployment.database
    misses = MissHandler(MissPolicy.NOT_FOUND, "https://huggingface.co", database.tasks, pytest.fail, deployment.clock)
    store = Store()
    reader = HubReader(database.hub_models, database.models, store, misses, deployment.clock)  # type: ignore[arg-type]
    event = build_event(gateway, method, before + tail, headers={"Range": "bytes=0-1"})
    request = read_hub_request(event, is_local=gateway == "ministack")
    response = reader.respond(request)
    assert response.status in (200, 307, 404)
    if store.signed:
        # Exactly the file whose name the client has encoded once.
        assert before.startswith(NAME)
        path = unquote(f"{before}{tail}".partition("#")[0].partition("?")[0]).split("/main/", 1)[1]
        if gateway == "ministack":  # which drops empty segments
            path = "/".join(filter(None, path.split("/")))
        assert store.signed == [model.resolved.prefix + path.removesuffix("/")]


KEY = "hf_" + "a1B2" * 10


@pytest.mark.parametrize(
    "path",
    [
        f"api/models/{KEY}",
        f"api/models/{KEY}/tree/main",
        f"api/models/{KEY}/model",
        f"api/models/org/{KEY}",
        f"{KEY}/resolve/main/config.json",
        f"org/model/resolve/{KEY}/config.json",
        f"api/models/org/model/revision/{KEY}",
        f"api/models/org/model/paths-info/{KEY.replace('_', '%5F')}",
    ],
)
def test_a_key_in_place_of_a_name_or_a_revision_is_not_repeated(path: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        find_route("POST" if "paths-info" in path else "GET", path)
    assert "form of a read key" in caught.value.message
    assert KEY not in caught.value.message


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("path", FILES)
def test_the_address_is_the_one_that_the_client_has(gateway: str, path: str) -> None:
    for target in (f"{NAME}/resolve/main/{quote(path)}", f"api/models/{NAME}/tree/main/{quote(path, safe='')}"):
        event = build_event(gateway, "GET", f"{target}?a=1&a=%26&b=")
        request = read_hub_request(event, is_local=gateway == "ministack")
        assert request.base_url == BASE_URLS[gateway]
        assert unquote(request.path) == unquote(target)
        assert request.encode_query() == "?a=1&a=%26&b="
