"""Find the paths that .gitattributes files assign to Git LFS. https://git-scm.com/docs/gitattributes"""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from pathspec import PathSpec

_LFS = "filter=lfs"


def match_lfs_paths(attributes: Mapping[str, bytes]) -> Callable[[str], bool]:
    """Return a function that tells whether a path may be in LFS. `attributes`: the .gitattributes files, by path.

    It may match too many paths, but not too few: lines that remove paths from LFS are ignored.
    """
    lines = [
        (str(PurePosixPath(path).parent), line.split())
        for path, content in attributes.items()
        for line in content.decode("utf-8", "replace").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    macros = {
        pattern.removeprefix("[attr]")
        for _, (pattern, *values) in lines
        if pattern.startswith("[attr]") and _LFS in values
    }
    patterns = [
        _resolve(directory, pattern.strip('"').replace("[[:space:]]", "?"))
        for directory, (pattern, *values) in lines
        if not pattern.startswith("[attr]") and (macros | {_LFS}) & set(values)
    ]
    spec = PathSpec.from_lines("gitignore", [p for p in patterns if not p.lstrip("/").startswith("!")])
    return spec.match_file


def _resolve(directory: str, pattern: str) -> str:
    """Return the pattern, which is relative to the directory of its file, relative to the repository."""
    if directory == ".":
        return pattern
    anchored = pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"
    return f"/{directory}/{anchored}"
