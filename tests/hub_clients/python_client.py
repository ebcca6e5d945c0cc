"""Calls huggingface_hub as requests on standard input ask. Runs in the environment of a client, which has nothing of
this project.

A request is a line of JSON: the name of an operation and its keyword arguments. The response is a line of JSON:
`{"result": ...}`, or `{"error": class, "message": text, "bases": classes}`.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download, try_to_load_from_cache

# The protocol uses the standard output, so that no other output may go there.
RESPONSES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def list_revisions(repo_id: str) -> dict[str, str]:
    refs = HfApi().list_repo_refs(repo_id)
    return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}


def read_info(repo_id: str, **options: Any) -> dict[str, Any]:
    info = HfApi().model_info(repo_id, **options)
    names = sorted(sibling.rfilename for sibling in info.siblings or [])
    return {"id": info.id, "sha": info.sha, "files": names, "private": info.private, "gated": info.gated}


def list_models(**options: Any) -> list[str]:
    return [model.id for model in HfApi().list_models(**options)]


def list_tree(repo_id: str, **options: Any) -> dict[str, int | None]:
    """Return the size of each file, and None for each folder."""
    return {entry.path: getattr(entry, "size", None) for entry in HfApi().list_repo_tree(repo_id, **options)}


def read_paths_info(repo_id: str, paths: list[str], **options: Any) -> list[str]:
    return [entry.path for entry in HfApi().get_paths_info(repo_id, paths, **options)]


def read_account(**options: Any) -> str:
    name: str = HfApi().whoami(**options)["name"]
    return name


def list_folder(path: str) -> list[str]:
    return sorted(map(str, HfFileSystem(use_listings_cache=False).ls(path, detail=False)))


def find_files(pattern: str) -> list[str]:
    return sorted(map(str, HfFileSystem(use_listings_cache=False).glob(pattern)))


def read_part(path: str, start: int, size: int) -> str:
    """Return the bytes in hexadecimal."""
    with HfFileSystem().open(path, "rb", block_size=64 * 1024) as file:
        file.seek(start)
        content: bytes = file.read(size)
    return content.hex()


def download_file(**options: Any) -> str:
    return str(hf_hub_download(**options))


def download_snapshot(**options: Any) -> str:
    # Each concurrent request starts a process of the local stack, which takes a second.
    return str(snapshot_download(**{"max_workers": 2, **options}))


def find_cached(**options: Any) -> str | bool | None:
    """Return the path of a cached file, False for a file that is known to be absent, or None."""
    found = try_to_load_from_cache(**options)
    return found if found is None or isinstance(found, str) else False


OPERATIONS: dict[str, Callable[..., Any]] = {
    operation.__name__: operation
    for operation in (
        list_revisions,
        read_info,
        list_models,
        list_tree,
        read_paths_info,
        read_account,
        list_folder,
        find_files,
        read_part,
        download_file,
        download_snapshot,
        find_cached,
    )
}


def respond(line: str) -> dict[str, Any]:
    request = json.loads(line)
    try:
        return {"result": OPERATIONS[request["operation"]](**request["options"])}
    except Exception as error:  # noqa: BLE001
        bases = [base.__name__ for base in type(error).__mro__]
        return {"error": type(error).__name__, "message": str(error), "bases": bases}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(respond(line)), file=RESPONSES)
