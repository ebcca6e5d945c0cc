import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from modelhaul.domain.errors import ModelNotFoundError
from modelhaul.domain.models import ResolvedModel
from modelhaul.imports.missing import PublicHub
from modelhaul.ports.missing_models import (
    MissingModel,
    MissingModels,
    UpstreamDocument,
    UpstreamFile,
    UpstreamRequest,
)
from tests.fakes.model_source import InMemoryModelSource


@dataclass
class InMemoryPublicHub(PublicHub):
    """The models of `source`, except those in `hidden`, as clients without a token see them.

    A tree has a page for each file, whose cursor is the number of the file.
    """

    source: InMemoryModelSource
    hidden: set[str] = field(default_factory=set)

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        if name in self.hidden:
            raise ModelNotFoundError(f"there is no public model {name}")
        return self.source.resolve(name, revision)

    def find_commit_date(self, model: ResolvedModel) -> datetime | None:
        return self.source.find_commit_date(model)

    def find_missing_remedy(self, name: str) -> None:
        return

    def describe_file(self, name: str, revision: str, path: str) -> UpstreamFile | None:
        model = self.resolve(name, revision)
        found = {file.path: file for file in self.source.list_files(model)}.get(path)
        return UpstreamFile(found.digest.value, found.size, model.commit) if found else None

    def read_document(self, name: str, commit: str, request: UpstreamRequest) -> UpstreamDocument | None:
        paths = [file.path for file in self.source.list_files(self.resolve(name, commit))]
        match request.kind:
            case "tree" if request.path:
                return None
            case "tree":
                number = int(request.query.rpartition("cursor=")[2] or 0)
                following = f"cursor={number + 1}" if number + 1 < len(paths) else None
                return UpstreamDocument(json.dumps(paths[number : number + 1]), following)
            case "paths-info":
                return UpstreamDocument(json.dumps([path for path in paths if path in request.paths]))
        return UpstreamDocument(json.dumps({"kind": request.kind, "sha": commit, "query": request.query}))


@dataclass
class RecordingMissingModels(MissingModels):
    """Keeps the arguments of each call of `models`. `on_call` may raise what the call then raises."""

    models: MissingModels
    on_call: Callable[[], None] = lambda: None
    calls: list[tuple[str, str, UpstreamRequest | None]] = field(default_factory=list)

    def request_import(
        self,
        name: str,
        revision: str,
        *,
        model_id: str | None = None,
        upstream: UpstreamRequest | None = None,
        submitted_by: str | None = None,
    ) -> MissingModel:
        self.on_call()
        self.calls.append((name, revision, upstream))
        return self.models.request_import(
            name, revision, model_id=model_id, upstream=upstream, submitted_by=submitted_by
        )
