"""What a person writes for a model at its source: `name@revision`, or the address of its page."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from modelhaul_cli.errors import UsageError

_SCP_LIKE = re.compile(r"(?:ssh://)?git@github\.com[:/](.+)")
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    revision: str


def read_huggingface(text: str, revision: str | None) -> Reference:
    """`name`, `owner/name`, either with `@revision`, or the address of the model's page. Raises UsageError."""
    path = _read_path(text, ("huggingface.co", "hf.co"))
    return _choose(text, path or text, revision)


def read_github(text: str, revision: str | None) -> Reference:
    """`owner/repository`, with `@revision` (which may have slashes), or an address, as a browser or `git clone` has it.

    Raises UsageError.
    """
    clone = _SCP_LIKE.fullmatch(text)
    path = clone.group(1) if clone else _read_path(text, ("github.com", "www.github.com"))
    reference = _choose(text, path or text, revision)
    name = reference.name.removesuffix(".git") if path else reference.name
    owner, slash, repository = name.partition("/")
    if not owner or not slash or not repository or "/" in repository:
        raise UsageError(
            "This is not a repository on GitHub",
            f"{text[:200]!r}: write OWNER/REPOSITORY or OWNER/REPOSITORY@REVISION.",
        )
    return Reference(name, reference.revision)


def _read_path(text: str, hosts: tuple[str, ...]) -> str | None:
    """The path of an address at one of these hosts as `name[@revision]`; None for what is no address."""
    if "://" not in text and not text.startswith(tuple(f"{host}/" for host in hosts)):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        parts = urlsplit("")
    if parts.hostname not in hosts or parts.scheme not in ("https", "http"):
        raise UsageError("This address is not known", f"{text[:200]!r} is not one of {hosts[0]}: write the name alone.")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    name, rest = "/".join(segments[:2]), segments[2:]
    if rest and rest[0] in ("tree", "commit") and len(rest) > 1:
        return f"{name}@{'/'.join(rest[1:])}"
    if rest or not name:
        raise UsageError(
            "This address is not that of a model", f"{text[:200]!r}: write the name alone, or NAME@REVISION."
        )
    return name


def _choose(text: str, named: str, revision: str | None) -> Reference:
    name, at, own = named.partition("@")
    if not name or (at and not own):
        raise UsageError("This is not a model", f"{text[:200]!r}: write NAME or NAME@REVISION.")
    if own and revision and own != revision:
        raise UsageError("Two revisions are named", f"{own!r} after the @, and {revision!r} by --revision.")
    return Reference(name, own or revision or DEFAULT_REVISION)
