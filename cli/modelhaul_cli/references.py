"""Model references: `name@revision`, or the URL of the model's page."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from modelhaul_cli.errors import UsageError

# The kind of a reference and its form, for messages.
_MODEL = ("model", "[OWNER/]NAME[@REVISION]")
_REPOSITORY = ("GitHub repository", "OWNER/REPO[@REVISION]")
_SCP_LIKE = re.compile(r"(?:ssh://)?git@github\.com[:/](.+)")
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    revision: str


def read_huggingface(text: str, revision: str | None) -> Reference:
    """Parse `name` or `owner/name`, either with `@revision`, or the URL of the model's page. Raises UsageError."""
    path = _read_path(text, ("huggingface.co", "hf.co"), *_MODEL)
    return _create_reference(text, path or text, revision, *_MODEL)


def read_github(text: str, revision: str | None) -> Reference:
    """Parse `owner/repository` with an optional `@revision`, or the URL of the repository's page or clone.

    The revision may contain slashes. Raises UsageError.
    """
    clone = _SCP_LIKE.fullmatch(text)
    path = clone.group(1) if clone else _read_path(text, ("github.com", "www.github.com"), *_REPOSITORY)
    reference = _create_reference(text, path or text, revision, *_REPOSITORY)
    name = reference.name.removesuffix(".git") if path else reference.name
    owner, slash, repository = name.partition("/")
    if not owner or not slash or not repository or "/" in repository:
        raise UsageError(
            "Invalid GitHub repository", f"{text[:200]!r} is not OWNER/REPO[@REVISION] or the URL of a repository."
        )
    return Reference(name, reference.revision)


def _read_path(text: str, hosts: tuple[str, ...], kind: str, form: str) -> str | None:
    """Return the path of a URL on one of these hosts as `name[@revision]`, or None if the text is not a URL."""
    if "://" not in text and not text.startswith(tuple(f"{host}/" for host in hosts)):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        parts = urlsplit("")
    if parts.hostname not in hosts or parts.scheme not in ("https", "http"):
        raise UsageError("Unsupported URL", f"{text[:200]!r} is not a {hosts[0]} URL. Use {form}.")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    name, rest = "/".join(segments[:2]), segments[2:]
    if rest and rest[0] in ("tree", "commit") and len(rest) > 1:
        return f"{name}@{'/'.join(rest[1:])}"
    if rest or not name:
        raise UsageError(f"Invalid {kind} URL", f"{text[:200]!r} is not the URL of a {kind}. Use {form}.")
    return name


def _create_reference(text: str, reference: str, revision: str | None, kind: str, form: str) -> Reference:
    name, at, suffix = reference.partition("@")
    if not name or (at and not suffix):
        raise UsageError(f"Invalid {kind}", f"{text[:200]!r} is not {form} or the URL of a {kind}.")
    if suffix and revision and suffix != revision:
        raise UsageError(
            "Conflicting revisions", f"{text[:200]!r} selects revision {suffix!r}, but --revision is {revision!r}."
        )
    return Reference(name, suffix or revision or DEFAULT_REVISION)
