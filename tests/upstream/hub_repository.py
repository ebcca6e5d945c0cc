"""A model repository of the loopback Hub: commits of files, and the branches that point at them."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml

from tests.upstream.content import BytesContent, Content, DiskContent

LFS_THRESHOLD = 10 * 1024 * 1024
"""Bytes above which the Hub accepts a file only as LFS (https://huggingface.co/docs/hub/storage-limits)."""


class HubFile:
    """A file at one commit. lfs None: LFS when it is larger than LFS_THRESHOLD."""

    def __init__(self, source: "bytes | Path | Content", *, lfs: bool | None = None) -> None:
        match source:
            case bytes():
                self.content: Content = BytesContent(source)
            case Path():
                self.content = DiskContent(source)
            case _:
                self.content = source
        self.is_lfs = self.content.size > LFS_THRESHOLD if lfs is None else lfs

    @property
    def size(self) -> int:
        return self.content.size

    @property
    def sha256(self) -> str:
        return self.content.sha256

    @cached_property
    def pointer(self) -> bytes:
        """What git holds for an LFS file (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
        version = "https://git-lfs.github.com/spec/v1"
        return f"version {version}\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The git blob's sha1: of the pointer when the file is LFS."""
        content = BytesContent(self.pointer) if self.is_lfs else self.content
        digest = hashlib.sha1(b"blob %d\0" % content.size, usedforsecurity=False)
        for chunk in content.read(0, content.size):
            digest.update(chunk)
        return digest.hexdigest()


FileSource = bytes | Path | Content | HubFile


@dataclass(frozen=True)
class Commit:
    sha: str
    """40 hexadecimal digits, derived from the files' paths and blobs alone."""
    files: Mapping[str, HubFile]

    def list_entries(self, folder: str = "", *, recursive: bool) -> list[dict[str, object]]:
        """Return files and directories below `folder` ("": the root), by path, as the tree API words them."""
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, object]] = {}
        for path, file in self.files.items():
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                parent = prefix + "/".join(parts[:depth])
                entries[parent] = {"type": "directory", "oid": _sha1(parent), "size": 0, "path": parent}
            if recursive or len(parts) == 1:
                entries[path] = describe_file(path, file)
        return [entries[path] for path in sorted(entries)]


def describe_card(readme: HubFile | None) -> dict[str, object]:
    """What the Hub makes of a README's metadata: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    content = b"".join(readme.content.read(0, readme.size)).decode(errors="replace") if readme else ""
    block = re.match(r"---\n(.*?)\n---(?:\n|$)", content, re.DOTALL)
    card = yaml.safe_load(block[1]) if block else None
    if not isinstance(card, dict):
        return {"tags": []}
    library, pipeline_tag, base_models = (card.get(name) for name in ("library_name", "pipeline_tag", "base_model"))
    tags = [tag for tag in (library, pipeline_tag, *card.get("tags", [])) if tag]
    tags += [f"license:{card['license']}"] if "license" in card else []
    tags += [f"base_model:{name}" for name in (base_models if isinstance(base_models, list) else [base_models]) if name]
    return {
        "cardData": card,
        "tags": tags,
        **({"library_name": library} if library else {}),
        **({"pipeline_tag": pipeline_tag} if pipeline_tag else {}),
    }


def describe_file(path: str, file: HubFile) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class HubRepository:
    """branches: for each branch its files, by path. Equal files give equal commits.

    old_names: former ids, which the Hub redirects to repo_id. committed_at: the date of each commit.
    """

    def __init__(
        self,
        repo_id: str,
        branches: Mapping[str, Mapping[str, FileSource]],
        *,
        old_names: Iterable[str] = (),
        private: bool = False,
        gated: Literal["auto", "manual", False] = False,
        disabled: bool = False,
        committed_at: str = "2025-01-01T00:00:00.000Z",
    ) -> None:
        self.repo_id = repo_id
        self.old_names = tuple(old_names)
        self.private = private
        self.gated: Literal["auto", "manual", False] = gated
        self.disabled = disabled
        self.committed_at = committed_at
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self._parents: dict[str, str | None] = {}
        for branch, files in branches.items():
            self.commit(branch, files)

    def commit(self, branch: str, files: Mapping[str, FileSource]) -> str:
        """Make `files` the whole content of the branch and return the commit's sha."""
        held = {path: file if isinstance(file, HubFile) else HubFile(file) for path, file in files.items()}
        listing = "".join(f"{held[path].oid} {path}\n" for path in sorted(held))
        commit = Commit(_sha1(f"{self.repo_id}\n{listing}"), held)
        self.commits[commit.sha] = commit
        self._parents.setdefault(commit.sha, self.branches.get(branch))
        self.branches[branch] = commit.sha
        return commit.sha

    def move_branch(self, branch: str, revision: str) -> str:
        """Point the branch at another branch's commit, or at a sha, and return it. KeyError when unknown."""
        self.branches[branch] = sha = self.commits[self.branches.get(revision, revision)].sha
        return sha

    def list_history(self, sha: str) -> list[str]:
        """The commit and those that it was made on, newest first."""
        history: list[str] = []
        parent: str | None = sha
        while parent is not None and parent not in history:
            history.append(parent)
            parent = self._parents[parent]
        return history

    def find_commit(self, revision: str) -> Commit | None:
        """revision: a branch or a full sha."""
        return self.commits.get(self.branches.get(revision, revision))
