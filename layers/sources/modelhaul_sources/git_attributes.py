"""What .gitattributes files say about Git LFS. https://git-scm.com/docs/gitattributes"""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from pathspec import PathSpec


def match_lfs_paths(attributes: Mapping[str, bytes]) -> Callable[[str], bool]:
    """Whether a path may be in LFS. `attributes`: path of each .gitattributes file to its content.

    Too many rather than too few: that a later line takes a path out again is not looked at.
    """
    lines = [
        (str(PurePosixPath(path).parent), line.split())
        for path, content in attributes.items()
        for line in content.decode("utf-8", "replace").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    macros = {words[0].removeprefix("[attr]") for _, words in lines if words[0].startswith("[attr]") and _is_lfs(words)}
    patterns = [
        _place(directory, words[0].strip('"').replace("[[:space:]]", "?"))
        for directory, words in lines
        if not words[0].startswith("[attr]") and (_is_lfs(words) or macros & set(words[1:]))
    ]
    spec = PathSpec.from_lines("gitignore", [p for p in patterns if not p.lstrip("/").startswith("!")])
    return spec.match_file


def _is_lfs(words: list[str]) -> bool:
    return "filter=lfs" in words[1:]


def _place(directory: str, pattern: str) -> str:
    """The pattern, relative to the directory of its file, as one relative to the repository."""
    if directory == ".":
        return pattern
    anchored = pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"
    return f"/{directory}/{anchored}"
