"""JSON documents of the Hub's API: https://huggingface.co/docs/hub/api."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from modelhaul.domain.hub_names import derive_commit, describe_pointer
from modelhaul.domain.models import Model
from modelhaul.hub.requests import KeyContext
from modelhaul.hub.snapshots import HubFile, HubFolder, Snapshot

# Size of a document as a JSON string, because a Lambda response is a JSON document of up to 6 MB:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_DOCUMENT = 5_000_000

_PULL_REQUEST = "refs/pr/"


def describe_info(snapshot: Snapshot, *, with_blobs: bool) -> dict[str, Any]:
    """Return the information about a model at a commit. `with_blobs` adds size and digests of the files.

    `siblings` is empty if there are too many files for a response. Clients then read the tree.
    """
    siblings, is_complete = _take_fitting(
        _describe_sibling(file, with_blobs=with_blobs) for file in snapshot.files.values()
    )
    return {
        **_describe_model(snapshot.hub_id, snapshot.commit, snapshot.created_at, snapshot.last_modified),
        "siblings": siblings if is_complete else [],
    }


def describe_listed(model: Model) -> dict[str, Any]:
    """Return the entry of a model in a list of models."""
    resolved = model.resolved
    return _describe_model(resolved.hub_id, derive_commit(resolved), model.created_at, model.updated_at)


def describe_page(
    snapshot: Snapshot, entries: Iterable[HubFile | HubFolder], *, expand: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Return as many entries of a tree as fit into a response, and the path of the last one if there are more.

    `expand` adds the last commit.
    """
    page, is_complete = _take_fitting(describe_entry(snapshot, entry, expand=expand) for entry in entries)
    return page, None if is_complete else page[-1]["path"]


def describe_entry(snapshot: Snapshot, entry: HubFile | HubFolder, *, expand: bool) -> dict[str, Any]:
    """Return a file or folder of a tree. `expand` adds the last commit, which is the snapshot's."""
    commit = {
        "id": snapshot.commit,
        "title": f"Imported {snapshot.hub_id}",
        "date": _format_time(snapshot.last_modified),
    }
    described: dict[str, Any]
    if isinstance(entry, HubFolder):
        described = {"type": "directory", "oid": entry.oid, "size": 0, "path": entry.path}
    else:
        described = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
        if entry.is_lfs:
            described["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": _measure_pointer(entry)}
    return {**described, "lastCommit": commit} if expand else described


def describe_references(references: Mapping[str, str]) -> dict[str, Any]:
    """Return branches and pull requests. Tags are returned as branches, because records do not distinguish them."""
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in references.items()
        if not name.startswith("refs/")
    ]
    pull_requests = [
        {"name": name, "ref": name, "targetCommit": commit}
        for name, commit in references.items()
        if name.startswith(_PULL_REQUEST)
    ]
    return {"branches": branches, "tags": [], "converts": [], "pullRequests": pull_requests}


def describe_caller(key: KeyContext) -> dict[str, Any]:
    """Return the caller, for `hf auth login` and `hf auth whoami`."""
    return {
        "type": "user",
        "id": key.key_id,
        "name": key.name,
        "fullname": key.name,
        "isPro": False,
        "canPay": False,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": key.name, "role": "read"}},
    }


def _describe_model(hub_id: str, commit: str, created_at: datetime, last_modified: datetime) -> dict[str, Any]:
    owner, slash, _ = hub_id.partition("/")
    return {
        "_id": hashlib.sha256(hub_id.encode()).hexdigest()[:24],
        "id": hub_id,
        "modelId": hub_id,
        **({"author": owner} if slash else {}),
        "sha": commit,
        "createdAt": _format_time(created_at),
        "lastModified": _format_time(last_modified),
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }


def _describe_sibling(file: HubFile, *, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": file.path}
    sibling: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.is_lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _measure_pointer(file)}
    return sibling


def _measure_pointer(file: HubFile) -> int:
    return len(describe_pointer(file.sha256, file.size).content)


def _take_fitting(documents: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Return as many as fit into a response, at least one, and whether these are all."""
    taken: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        size += len(json.dumps(json.dumps(document)))
        if taken and size > MAX_DOCUMENT:
            return taken, False
        taken.append(document)
    return taken, True


def _format_time(moment: datetime) -> str:
    """Return the time in UTC as `2025-06-22T12:00:00.000Z`. Old clients require the fraction."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
