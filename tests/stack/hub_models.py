"""The models that the tests of Hub clients read, imported once for all."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.upstream.content import read_all
from tests.upstream.hub_repository import HubFile, HubRepository
from tests.upstream.repositories import (
    HUB_CLIENTS,
    HUB_CLIENTS_OLD_NAME,
    MOVING,
    REMOVED,
    build_hub_clients,
    build_two_branches,
)
from tests.weights import wrap_weights

if TYPE_CHECKING:
    from tests.stack.conftest import Stack

ARCHIVE = {
    "config.json": b'{"archive": 1}',
    "tokenizer.json": b"{}",
    "model.safetensors": wrap_weights(b"archive!" * 2000),
    "nested/empty.txt": b"",
}
THOUSAND = ARCHIVE | {f"data/{n % 10}/{n:03}.json": b'{"number": %d}' % n for n in range(1000 - len(ARCHIVE))}
"""Another model of the same archive."""
PARTS = (["config.json", "README.md"], ["tokenizer.json"])
"""Two imports of parts of the branch `next` of HUB_CLIENTS."""


@dataclass(frozen=True)
class ImportedModels:
    """`records` are the responses of the import API by `hub_id`."""

    records: Mapping[str, dict[str, Any]]
    repositories: Mapping[str, HubRepository]

    def get_commit(self, name: str, branch: str = "main") -> str:
        return self.repositories[name].branches[branch]

    def list_digests(self, name: str, branch: str = "main") -> dict[str, str]:
        """Return the SHA-256 of each file of a model from the Hub."""
        files = self.repositories[name].commits[self.get_commit(name, branch)].files
        return {path: file.sha256 for path, file in files.items()}

    def get_content(self, name: str, path: str, branch: str = "main") -> bytes:
        file: HubFile = self.repositories[name].commits[self.get_commit(name, branch)].files[path]
        return read_all(file.content)


def import_models(stack: "Stack") -> ImportedModels:
    """Import the models of the Hub, of an archive, and of GitHub if git is present."""
    submits: list[Callable[[], str]] = [
        *(partial(stack.accept, HUB_CLIENTS, "next", allow_patterns=paths) for paths in PARTS),
        *(partial(stack.accept, name) for name in (HUB_CLIENTS_OLD_NAME, MOVING, REMOVED)),
        partial(_submit_archive, stack),
    ]
    if stack.state.sample_repository:
        submits.append(partial(_submit_repository, stack))
    records = {}
    # One by one: many processes of functions would start for all at once.
    for submit in submits:
        task = stack.wait_for_end(submit())
        assert task["task_status"] == "DONE", task
        for model in task["models"]:
            response = stack.http.get(f"{stack.state.api_url}/models/{model['model_id']}", timeout=30)
            assert response.status_code == 200, response.text
            record = response.json()
            records[record["hub_id"]] = record
    built = (build_hub_clients(), build_two_branches(MOVING), build_two_branches(REMOVED))
    return ImportedModels(records, {repository.repo_id: repository for repository in built})


def _submit_repository(stack: "Stack") -> str:
    response = stack.submit_repository(HUB_CLIENTS, "feature/x")
    assert response.status_code == 201, response.text
    return response.headers["Location"].rpartition("/")[2]


def _submit_archive(stack: "Stack") -> str:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for folder, model in (("few", ARCHIVE), ("thousand", THOUSAND)):
            for path, content in model.items():
                archive.writestr(f"{folder}/{path}", content)
    files = {"file": ("models.zip", body.getvalue(), "application/zip")}
    parameters = {"model_name": "hub"}
    response = stack.http.post(f"{stack.state.api_url}/upload/local", params=parameters, files=files, timeout=120)
    assert response.status_code == 201, response.text
    return response.links["status"]["url"].rpartition("/")[2]


def list_digests(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder. Ignores files that clients write for themselves."""
    root = Path(folder)
    paths = (path for path in root.rglob("*") if path.is_file())
    names = {path.relative_to(root).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(names.items())
        if not name.startswith(".cache/")
    }
