"""Files of a commit, from the manifests of its models."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelhaul.domain.errors import ObjectGoneError
from modelhaul.domain.hub_names import describe_pointer
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.models import Model
from modelhaul.ports.object_store import ObjectStore

MAX_CACHED_FILES = 200_000  # about 0.5 KB each
_MAX_MANIFEST = 256 * 1024 * 1024  # bytes; more does not fit in the memory of the function
_GIT = "git-sha1:"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model. `blob_id`: the Git blob ID of a plain file, None for a file in Git LFS.

    `prefix` is the key prefix of the model `model_id`.
    """

    path: str
    size: int
    sha256: str
    blob_id: str | None
    prefix: str
    model_id: str

    @property
    def key(self) -> str:
        """Return the key in the models bucket."""
        return self.prefix + self.path

    @property
    def is_lfs(self) -> bool:
        return self.blob_id is None

    @property
    def etag(self) -> str:
        """Return the name of the file's content in a client's cache: the SHA-256 of LFS files, else the blob ID."""
        return self.blob_id or self.sha256

    @property
    def oid(self) -> str:
        """Return the ID of the file's Git blob, which for LFS files is their pointer's."""
        return self.blob_id or describe_pointer(self.sha256, self.size).oid


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder. `oid` identifies its path in the commit."""

    path: str
    oid: str


@dataclass(frozen=True, slots=True)
class _Manifest:
    """Files by path, and the paths of all folders."""

    files: dict[str, HubFile]
    folders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit of a model: its files by path, and the paths of its folders."""

    hub_id: str
    commit: str
    files: Mapping[str, HubFile]
    folders: frozenset[str]
    created_at: datetime
    last_modified: datetime

    def find_entry(self, path: str) -> HubFile | HubFolder | None:
        """Return the file or folder, None if there is none."""
        if path in self.folders:
            # The ID of the folder in Git is unknown. This ID has the same form, and identifies the path in the commit.
            name = f"{self.hub_id} {self.commit} {path}"
            return HubFolder(path, hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest())
        return self.files.get(path)

    def list_entries(self, folder: str, *, recursive: bool, after: str) -> Iterator[HubFile | HubFolder]:
        """List what is in the folder (`""` for the root), sorted by path, with the paths that follow `after`.

        `recursive` includes what is in its folders.
        """
        start = f"{folder}/" if folder else ""
        paths = [
            path
            for path in (*self.files, *self.folders)
            if path.startswith(start) and path > after and (recursive or "/" not in path[len(start) :])
        ]
        return (entry for path in sorted(paths) if (entry := self.find_entry(path)) is not None)


class SnapshotReader:
    """Reads manifests, and keeps the last ones in memory, up to `max_files` files in total."""

    def __init__(self, store: ObjectStore, *, max_files: int = MAX_CACHED_FILES) -> None:
        self._store = store
        self._max_files = max_files
        self._manifests: OrderedDict[tuple[str, str], _Manifest] = OrderedDict()

    def load(self, models: Sequence[Model], commit: str) -> Snapshot:
        """Return the snapshot of models that are READY and have the same commit, newest first.

        If several have a file, the newest one's is taken. Raises StorageUnavailableError, and ObjectGoneError for a
        model that was deleted or imported again since its record was read.
        """
        manifests = [self._read_manifest(model) for model in models]
        files, folders = manifests[0].files, manifests[0].folders
        if len(manifests) > 1:
            files = {path: file for manifest in reversed(manifests) for path, file in manifest.files.items()}
            folders = folders.union(*(manifest.folders for manifest in manifests))
        return Snapshot(
            models[0].resolved.hub_id,
            commit,
            files,
            folders,
            min(model.created_at for model in models),
            max(model.updated_at for model in models),
        )

    def _read_manifest(self, model: Model) -> _Manifest:
        # A model that is imported again has the same ID, but may have other files.
        cached = (model.model_id, model.task_id)
        if cached in self._manifests:
            self._manifests.move_to_end(cached)
            return self._manifests[cached]
        document = json.loads(self._store.read(manifest_key(model.model_id), 0, _MAX_MANIFEST))
        if document["task_id"] != model.task_id:
            raise ObjectGoneError(f"Model {model.model_id} was imported again.")
        prefix = model.resolved.prefix
        files = {file["path"]: _read_file(file, prefix, model.model_id) for file in document["files"]}
        manifest = _Manifest(files, _list_folders(files))
        self._manifests[cached] = manifest
        # The last one is kept, however large it is.
        while len(self._manifests) > 1 and self._count_files() > self._max_files:
            self._manifests.popitem(last=False)
        return manifest

    def _count_files(self) -> int:
        return sum(len(manifest.files) for manifest in self._manifests.values())


def _read_file(file: Mapping[str, Any], prefix: str, model_id: str) -> HubFile:
    digest: str = file["source_digest"]
    blob_id = digest.removeprefix(_GIT) if digest.startswith(_GIT) else None
    return HubFile(file["path"], file["size"], file["sha256"], blob_id, prefix, model_id)


def _list_folders(paths: Iterable[str]) -> frozenset[str]:
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return frozenset(folders)
