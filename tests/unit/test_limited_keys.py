"""Read keys that are limited to names: for requests with such a key, other models do not exist."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.errors import ModelNotFoundError
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.name_patterns import matches_any
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.hub import routes
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.hub.requests import HubRequest, KeyContext
from modelhaul.hub.responses import HubResponse
from modelhaul.hub.routes import RouteKind, find_route
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.ports.missing_models import MissingModel, MissingModelError, MissingModels, UpstreamRequest
from tests.fakes.deployment import Deployment
from tests.fakes.hub_model_repository import InMemoryHubModelRepository
from tests.fakes.missing_models import InMemoryPublicHub
from tests.fakes.model_repository import InMemoryModelRepository
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.tables import InMemoryTables
from tests.weights import wrap_weights

WEIGHTS = wrap_weights(random.Random("limited").randbytes(2000))
OLD_NAMES = {
    "alpha": "acme/alpha",
    "old-acme/alpha": "acme/alpha",
    "acme/renamed": "other/beta",
    "acme/pending-once": "other/pending",
    "other/renamed": "acme/secret",
}
NAMES = ("acme/alpha", "acme/secret", "other/beta", "acme/pending", "other/pending", "other/failed")
IMPORTED = (*NAMES, "github.acme/alpha", "github.other/beta")
REQUESTED = (*IMPORTED, *OLD_NAMES, "ACME/Alpha", "Other/BETA", "acme/none", "other/none", "none")
PATTERNS = (
    *IMPORTED,
    *OLD_NAMES,
    "acme/*",
    "other/*",
    "ACME/A*",
    "*/alpha",
    "github.*",
    "*.acme/*",
    "old-*",
    "none/*",
    "*a*",
    "*",
)
# The routes that do not have the form NAME/ACTION of the tables in `modelhaul.hub.routes`.
OTHER_ROUTES = ("api/whoami-v2", "api/models", "api/models/{}")


def make_files(text: str) -> dict[str, bytes]:
    return {
        "config.json": b'{"text": "%s"}' % text.encode(),
        "model.safetensors": WEIGHTS,
        "onnx/notes.txt": b"notes",
        "tokenizer.json": b"{}",
    }


def list_routes() -> list[str]:
    """Return each route of the API, with `{}` for the name of a model."""
    found = list(OTHER_ROUTES)
    for prefix, actions in (("api/models/", routes._ACTIONS), ("", routes._FILES)):
        for action, (_, least, _) in actions.items():
            rest = ["main", "config.json", "x", "y"][:least]
            found.append("/".join([f"{prefix}{{}}", action, *rest]))
    found += ["api/models/{}/tree/main/onnx", "{}/resolve/v1/model.safetensors", "{}/resolve/main/none.json"]
    return found


ROUTES = list_routes()


@dataclass
class RefusingMissingModels(MissingModels):
    """Starts no import, and keeps the names that were requested, with the patterns of the keys."""

    requested: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def request_import(
        self,
        name: str,
        revision: str,
        *,
        names: tuple[str, ...],
        model_id: str | None = None,
        upstream: UpstreamRequest | None = None,
        submitted_by: str | None = None,
    ) -> MissingModel:
        self.requested.append((name, names))
        return MissingModel(error=MissingModelError(ModelNotFoundError.type, f"no {name} {model_id}", retryable=False))


@dataclass
class World:
    """Models in every status, under every kind of name, and with old names."""

    deployment: Deployment
    missing: RefusingMissingModels = field(default_factory=RefusingMissingModels)

    def open_reader(self, policy: MissPolicy, names: Sequence[str] | None = None) -> HubReader:
        """`names`: the reader finds only what these patterns select, as if nothing else had ever been recorded."""
        tables, clock = self.deployment.tables, self.deployment.clock
        if names is not None:
            tables = InMemoryTables(
                clock,
                tasks=tables.tasks,
                models={
                    model_id: model
                    for model_id, model in tables.models.items()
                    if matches_any(names, model.resolved.hub_id)
                },
                hub_names={
                    old: new
                    for old, new in tables.hub_names.items()
                    if matches_any(names, old) and matches_any(names, new)
                },
                hub_revisions={
                    key: revision for key, revision in tables.hub_revisions.items() if matches_any(names, key[0])
                },
            )
        misses = MissHandler(policy, "https://hub.example", self.deployment.database.tasks, lambda: self.missing, clock)
        return HubReader(
            InMemoryHubModelRepository(tables), InMemoryModelRepository(tables), self.deployment.store, misses, clock
        )


def build_world() -> World:
    source = InMemoryModelSource({name: {"main": make_files(name), "v1": make_files(f"{name} v1")} for name in NAMES})
    deployment = Deployment(source)

    def submit(name: str, revision: str = "main", kind: Source = Source.HUGGINGFACE) -> Model:
        deployment.clock.now += 60
        source.kind = kind
        task = deployment.submit(name, revision, source=kind)
        (model,) = deployment.database.models.find_models(task.model_ids)
        return model

    for name in ("acme/alpha", "acme/secret", "other/beta"):
        for revision in ("main", "v1"):
            submit(name, revision)
            deployment.run()
    for name in ("acme/alpha", "other/beta"):
        submit(name, kind=Source.GITHUB)
        deployment.run()
    for name in ("acme/pending", "other/pending"):
        submit(name)
    failed = submit("other/failed")
    deployment.tables.write_model(failed.model_id, status=ModelStatus.FAILED)
    for old, new in OLD_NAMES.items():
        deployment.database.hub_models.save_name(old, new)
    ready = [model for model in deployment.tables.models.values() if model.status is ModelStatus.READY]
    assert len(ready) == 8
    return World(deployment)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


def create_request(
    method: str, path: str, names: Sequence[str], query: Mapping[str, tuple[str, ...]] | None = None
) -> HubRequest:
    key = KeyContext("k", "cluster", ("read", "import"), tuple(names))
    headers = {"content-type": "application/json"} if method == "POST" else {}
    body = b'{"paths": ["config.json", "onnx"], "expand": true}' if method == "POST" else b""
    return HubRequest(method, path, "https://api.example", "/hf", key, query or {}, headers, body)


def list_methods(route: str) -> tuple[str, ...]:
    return ("POST",) if "/paths-info/" in route else ("GET", "HEAD")


def test_the_routes_of_these_tests_are_all_routes() -> None:
    kinds = {find_route(list_methods(route)[0], route.format("a/b")).kind for route in ROUTES}
    assert kinds == set(RouteKind)


@given(
    route=st.sampled_from(ROUTES),
    name=st.sampled_from(REQUESTED),
    names=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4),
    policy=st.sampled_from(MissPolicy),
    query=st.dictionaries(
        st.sampled_from(["search", "author", "limit", "blobs", "expand", "recursive"]),
        st.sampled_from([("a",), ("acme",), ("other",), ("github.acme",), ("1",), ("2",), ("true",), ("beta",)]),
        max_size=2,
    ),
)
def test_a_response_is_the_same_as_without_the_other_models(
    world: World,
    route: str,
    name: str,
    names: list[str],
    policy: MissPolicy,
    query: dict[str, tuple[str, ...]],
) -> None:
    world.missing.requested.clear()
    for method in list_methods(route):
        request = create_request(method, route.format(name), names, query)
        response = world.open_reader(policy).respond(request)
        assert response == world.open_reader(policy, names).respond(request)
        # The same pages follow, and lead to the same models.
        for _ in range(10):
            if "Link" not in response.headers:
                break
            cursor = response.headers["Link"].partition("cursor=")[2].partition(">")[0].replace("+", " ")
            following = replace(request, query={**query, "cursor": (cursor.replace("%3A", ":"),)})
            response = world.open_reader(policy).respond(following)
            assert response == world.open_reader(policy, names).respond(following)
            assert response.status == 200
    for requested, patterns in world.missing.requested:
        assert matches_any(names, requested)
        assert patterns == tuple(names)


@pytest.mark.parametrize("route", [route for route in ROUTES if "{}" in route])
def test_no_route_distinguishes_other_models_from_missing_ones(world: World, route: str) -> None:
    """Nor does any route with the name of a model respond to a request for another one."""
    for policy in MissPolicy:
        reader = world.open_reader(policy)
        world.missing.requested.clear()

        def ask(name: str, method: str, names: Sequence[str], reader: HubReader = reader) -> HubResponse:
            response = reader.respond(create_request(method, route.format(name), names))
            return replace(
                response,
                headers={key: value.replace(name, "NAME") for key, value in response.headers.items()},
                body=response.body.replace(name.encode(), b"NAME"),
            )

        for method in list_methods(route):
            missing = ask("other/none", method, ["acme/*"])
            assert (missing.status, missing.headers["X-Error-Code"]) == (404, "RepoNotFound")
            others = (*IMPORTED, *OLD_NAMES, "Other/BETA")
            for name in others:
                if not matches_any(["acme/*"], name):
                    assert ask(name, method, ["acme/*"]) == missing, name
        assert world.missing.requested == []


@pytest.mark.parametrize("route", [route for route in ROUTES if "{}" in route and "none.json" not in route])
def test_each_route_returns_models_that_the_key_permits(world: World, route: str) -> None:
    """So the other tests compare more than errors."""
    reader = world.open_reader(MissPolicy.NOT_FOUND)
    for names in (["acme/*"], ["none/*", "ACME/alpha"], ALL_NAMES):
        for method in list_methods(route):
            response = reader.respond(create_request(method, route.format("acme/alpha"), names))
            assert response.status in (200, 307), response.body


def test_only_permitted_models_are_listed(world: World) -> None:
    reader = world.open_reader(MissPolicy.NOT_FOUND)

    def search(names: Sequence[str], **query: str) -> str:
        sent = {name: (value,) for name, value in query.items()}
        return reader.respond(create_request("GET", "api/models", names, sent)).body.decode()

    assert "other/beta" in search(ALL_NAMES)
    assert "other" not in search(["acme/*"])
    assert search(["acme/*"], author="other") == "[]"
    assert search(["acme/*"], search="beta") == "[]"
    assert '"id":"github.acme/alpha"' in search(["*.acme/*"])
    assert '"id":"acme/alpha"' not in search(["*.acme/*"])


def test_old_names_need_permission_as_the_new_names_do(world: World) -> None:
    reader = world.open_reader(MissPolicy.NOT_FOUND)

    def find_location(name: str, names: Sequence[str]) -> str | None:
        response = reader.respond(create_request("GET", f"{name}/resolve/main/config.json", names))
        if response.status == 404:
            assert response.headers["X-Error-Code"] == "RepoNotFound"
            return None
        assert response.status == 307
        return response.headers["Location"]

    assert find_location("acme/renamed", ALL_NAMES) == "/hf/other/beta/resolve/main/config.json"
    assert find_location("acme/renamed", ["acme/renamed", "other/beta"]) is not None
    assert find_location("acme/renamed", ["acme/*"]) is None, "a rename does not open the model"
    assert find_location("acme/renamed", ["other/*"]) is None
    assert find_location("other/beta", ["acme/*"]) is None
    response = reader.respond(create_request("GET", "acme/renamed/resolve/main/config.json", ["acme/*"]))
    assert b"beta" not in response.body


def test_the_message_names_the_patterns_of_the_key(world: World) -> None:
    reader = world.open_reader(MissPolicy.IMPORT)
    patterns = ["acme/*", "b/*", "c/*", "d/*", "e/*", "f/*", "g/*"]
    message = reader.respond(create_request("GET", "api/models/other/beta", patterns)).headers["X-Error-Message"]
    assert message == (
        "The read key cannot read other/beta. It can read only models whose names match acme/*, b/*, c/*, d/*, e/* and "
        "2 other patterns. `modelhaul keys create NAME --names other/beta` creates a key for this model."
    )


@dataclass
class Importing:
    """A deployment whose requests start imports."""

    policy: MissPolicy

    def __post_init__(self) -> None:
        self.source = InMemoryModelSource(
            {"acme/new": {"main": make_files("new")}, "other/x": {"main": make_files("x")}}
        )
        self.source.old_names |= {"acme/old": "acme/new", "acme/x": "other/x"}
        self.deployment = deployment = Deployment(self.source)
        hub = InMemoryPublicHub(self.source)
        importer = MissingModelImporter(deployment.submitter, deployment.database.models, hub, deployment.clock)
        database, clock = deployment.database, deployment.clock
        misses = MissHandler(self.policy, "https://hub.example", database.tasks, lambda: importer, clock)
        self.reader = HubReader(database.hub_models, database.models, deployment.store, misses, clock)

    def ask(self, name: str, names: Sequence[str]) -> HubResponse:
        return self.reader.respond(create_request("GET", f"api/models/{name}", names))

    def count_tasks(self) -> int:
        return len(self.deployment.database.tasks.list_tasks(limit=100, cursor=None).tasks)


@pytest.mark.parametrize("policy", [MissPolicy.IMPORT, MissPolicy.REDIRECT])
def test_a_key_starts_imports_only_of_the_models_that_it_permits(policy: MissPolicy) -> None:
    setup = Importing(policy)
    for name in ("other/x", "other/none"):
        response = setup.ask(name, ["acme/*"])
        assert (response.status, response.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert setup.count_tasks() == 0
    assert setup.ask("acme/new", ["acme/*"]).status == (503 if policy is MissPolicy.IMPORT else 200)
    assert setup.count_tasks() == 1


@pytest.mark.parametrize("policy", [MissPolicy.IMPORT, MissPolicy.REDIRECT])
@pytest.mark.parametrize("is_imported", [False, True])
def test_an_old_name_starts_no_import_of_another_model(policy: MissPolicy, is_imported: bool) -> None:
    setup = Importing(policy)
    if is_imported:
        setup.deployment.submit("acme/x")
        setup.deployment.run()
    tasks = setup.count_tasks()
    missing, moved = setup.ask("acme/none", ["acme/*"]), setup.ask("acme/x", ["acme/*"])
    assert (missing.status, missing.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert moved.body == missing.body.replace(b"acme/none", b"acme/x")
    assert moved.status == missing.status
    assert setup.count_tasks() == tasks
    assert "acme/x" not in setup.deployment.tables.hub_names or is_imported
    # Nor does the result for one key serve the requests of another.
    other = setup.ask("acme/x", ALL_NAMES)
    assert other.status in ((307,) if is_imported else (200, 503))
    assert setup.ask("acme/x", ["acme/*"]).status == 404


@pytest.mark.parametrize("policy", [MissPolicy.IMPORT, MissPolicy.REDIRECT])
def test_a_running_import_of_another_model_is_not_shown(policy: MissPolicy) -> None:
    setup = Importing(policy)
    setup.ask("acme/x", ALL_NAMES)
    assert setup.count_tasks() == 1
    for name in ("acme/x", "other/x"):
        response = setup.ask(name, ["acme/*"])
        assert (response.status, response.headers["X-Error-Code"]) == (404, "RepoNotFound")
        assert b"being imported" not in response.body
