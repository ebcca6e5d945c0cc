"""Repositories made by git and git-lfs, for the loopback GitHub to serve."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.upstream.content import BytesContent
from tests.upstream.git_tools import LfsServer, ObjectReader, run_git


@dataclass(frozen=True)
class Symlink:
    target: str


@dataclass(frozen=True)
class Submodule:
    commit: str


type Entry = bytes | Path | Symlink | Submodule
"""Content, or the file that has it; what is no file."""


@dataclass
class GitRepository:
    """A bare repository at `folder`. `old_names` are those that it had before; `blocked` is GitHub's 403 or 451;
    `sso`: its organization asks for a token that was authorized for single sign-on.
    """

    full_name: str
    folder: Path
    number: int
    private: bool = False
    old_names: Sequence[str] = ()
    blocked: int | None = None
    sso: bool = False
    shas: dict[str, str] = field(default_factory=dict)
    """The commit of each branch that it was made with."""

    def __post_init__(self) -> None:
        self.objects = ObjectReader(self.folder)

    def close(self) -> None:
        self.objects.close()

    @property
    def is_empty(self) -> bool:
        return not run_git(self.folder, "for-each-ref", "--count=1")

    def find_commit(self, revision: str) -> str | None:
        """As GitHub: a branch, a tag (peeled), a commit, perhaps abbreviated."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", f"refs/{revision}", revision):
            found = self.objects.read(f"{name}^{{commit}}")
            if found is not None and found[1] == "commit":
                return found[0]
        return None

    def find_commit_date(self, sha: str) -> str | None:
        """When the commit was committed, as GitHub writes it; None if there is no such commit."""
        found = self.objects.read(sha)
        if found is None or found[1] != "commit":
            return None
        seconds = int(run_git(self.folder, "show", "--no-patch", "--format=%ct", sha))
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def list_tree(self, name: str, *, recursive: bool) -> tuple[str, list[dict[str, Any]]] | None:
        """(sha of the tree, its entries in GitHub's form); None if there is no such tree or commit."""
        found = self.objects.read(f"{name}^{{tree}}")
        if found is None:
            return None
        entries = []
        listed = run_git(self.folder, "ls-tree", "-z", "-l", *(["-r", "-t"] if recursive else []), found[0])
        for line in filter(None, listed.split("\0")):
            about, path = line.split("\t", 1)
            mode, kind, sha, size = about.split()
            entry: dict[str, Any] = {"path": path, "mode": mode, "type": kind, "sha": sha}
            if kind == "blob":
                entry["size"] = int(size)
            entries.append(entry)
        return found[0], entries

    def read_blob(self, name: str) -> BytesContent | None:
        """A blob by its sha, or `commit:path`."""
        found = self.objects.read(name)
        return BytesContent(found[2]) if found is not None and found[1] == "blob" else None

    def compare(self, base: str, head: str) -> str | None:
        """The status of GitHub's comparison of two commits, None if they have no common ancestor, or one is missing."""
        try:
            ancestor = run_git(self.folder, "merge-base", base, head).strip()
        except RuntimeError:
            return None
        if ancestor == base:
            return "identical" if base == head else "ahead"
        return "behind" if ancestor == head else "diverged"

    def add_commit(self, branch: str, revision: str) -> str:
        """Commit the files of `revision` to the branch, and return the new commit."""
        parent = self.find_commit(branch)
        found = self.objects.read(f"{revision}^{{tree}}")
        assert parent is not None
        assert found is not None
        commit = run_git(self.folder, "commit-tree", found[0], "-p", parent, "-m", "Update the model").strip()
        return self.move_branch(branch, commit)

    def move_branch(self, branch: str, revision: str) -> str:
        """Returns the branch's new commit. Raises KeyError if there is no such revision."""
        commit = self.find_commit(revision)
        if commit is None:
            raise KeyError(revision)
        run_git(self.folder, "update-ref", f"refs/heads/{branch}", commit)
        return commit


class RepositoryMaker:
    """Makes repositories below `folder`, whose LFS objects are pushed to `lfs`."""

    def __init__(self, folder: Path, lfs: LfsServer) -> None:
        self._folder = folder
        self._lfs = lfs
        self._number = 1000

    def make(
        self,
        full_name: str,
        branches: Mapping[str, Mapping[str, Entry]],
        *,
        lfs: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        push_objects: bool = True,
        **properties: Any,
    ) -> GitRepository:
        """`lfs`: patterns of what goes into Git LFS; `tags`: name to branch, annotated. No branches: an empty one."""
        self._number += 1
        bare = self._folder / f"{self._number}.git"
        bare.mkdir(parents=True)
        run_git(bare, "init", "--quiet", "--bare")
        shas: dict[str, str] = {}
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            work = Path(place)
            run_git(work, "init", "--quiet")
            run_git(work, "lfs", "install", "--local", "--skip-smudge")
            run_git(work, "config", "lfs.url", f"{self._lfs.endpoint}/{full_name}.git/info/lfs")
            run_git(work, "config", "lfs.locksverify", "false")
            run_git(work, "remote", "add", "origin", str(bare))
            for number, (branch, entries) in enumerate(branches.items()):
                run_git(work, "checkout", "--quiet", *(["-B", branch] if not number else ["--orphan", branch]))
                if number:
                    run_git(work, "rm", "-rf", "--quiet", ".")
                shas[branch] = self._commit(work, entries, list(lfs))
            for tag, branch in (tags or {}).items():
                run_git(work, "tag", "-a", "-m", tag, tag, shas[branch])
            if branches:
                if push_objects and list(lfs):
                    run_git(work, "lfs", "push", "--all", "origin")
                # Without the hook, which would push the objects as well.
                run_git(work, "push", "--quiet", "--no-verify", "origin", "--all")
                run_git(work, "push", "--quiet", "--no-verify", "origin", "--tags")
        return GitRepository(full_name, bare, self._number, shas=shas, **properties)

    def _commit(self, work: Path, entries: Mapping[str, Entry], patterns: Sequence[str]) -> str:
        if patterns:
            lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)
            (work / ".gitattributes").write_text(lines)
        for path, entry in entries.items():
            if isinstance(entry, Submodule):
                continue
            place = work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            match entry:
                case Symlink():
                    place.symlink_to(entry.target)
                case Path():
                    place.write_bytes(entry.read_bytes())
                case bytes():
                    place.write_bytes(entry)
        run_git(work, "add", "--all", "--force")
        for path, entry in entries.items():
            if isinstance(entry, Submodule):
                run_git(work, "update-index", "--add", "--cacheinfo", f"160000,{entry.commit},{path}")
        run_git(work, "commit", "--quiet", "--allow-empty", "-m", "Add the model")
        return run_git(work, "rev-parse", "HEAD").strip()
