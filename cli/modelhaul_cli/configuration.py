"""API URL and authentication: from options, the environment, or the local stack of this checkout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelhaul_cli.errors import UsageError
from modelhaul_cli.urls import check_url, is_loopback

URL_VARIABLE = "MODELHAUL_API_URL"
KEY_VARIABLE = "MODELHAUL_API_KEY"
AUTH_VARIABLE = "MODELHAUL_AUTH"
IAM, KEY = "iam", "key"
STATE_FILE = Path(".local") / "stack.json"

INSTRUCTIONS = f"""\
Set {URL_VARIABLE} and {KEY_VARIABLE}, or pass --api-url and --api-key-file. In a checkout with a running local
stack (`make run` or `make up`), they are read from .local/stack.json in this directory or the nearest parent directory.
For a stack in AWS, get the API URL and the ID of the API key from the stack outputs, then the key by its ID:
  aws cloudformation describe-stacks --stack-name modelhaul --output text \\
    --query "Stacks[0].Outputs[?OutputKey=='ApiUrl' || OutputKey=='ApiKeyId'].[OutputKey, OutputValue]"
  aws apigateway get-api-key --include-value --query value --output text --api-key ID
A stack with AuthMode=IAM requires AWS credentials and no key: set {URL_VARIABLE} and, for example, AWS_PROFILE
(docs/access.md)."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`url` includes the stage (`…/v1`) and has no trailing slash. `key` is "" if requests are signed with AWS
    credentials. `options` are the options that were given.
    `hub_url` is the URL of a local stack's Hub read API, or "" if it is not known.
    """

    url: str
    key: str = field(repr=False)
    options: tuple[str, ...] = ()
    hub_url: str = ""


def find_configuration(
    api_url: str | None, api_key_file: Path | None, environment: Mapping[str, str], folder: Path
) -> Configuration:
    """Return the configuration from the options, the environment or the local stack of `folder` or a parent, in this
    order. If no key is configured for the URL, or with MODELHAUL_AUTH=iam, requests are signed with AWS credentials.

    The URL of a local stack is used only with the key of the same stack, so that a stack.json in an untrusted checkout
    receives no other key. Raises UsageError.
    """
    options: list[str] = []
    auth = _read_auth(environment)
    key, key_origin = "" if auth == IAM else environment.get(KEY_VARIABLE, ""), f"${KEY_VARIABLE}"
    if api_key_file is not None:
        if auth == IAM:
            raise UsageError("Contradictory authentication", f"--api-key-file was given with ${AUTH_VARIABLE}=iam.")
        auth, key, key_origin = KEY, _read_key(api_key_file), f"--api-key-file {api_key_file}"
        options += ["--api-key-file", str(api_key_file)]
    url = api_url or environment.get(URL_VARIABLE, "")
    if api_url:
        options += ["--api-url", api_url]
    if url:
        url = check_url(url, "API URL").rstrip("/")
        if key:
            return Configuration(url, _check_key(key, key_origin), tuple(options))
        return replace(_find_other_credentials(url, auth, folder), options=tuple(options))
    if api_key_file is not None:
        raise UsageError("API URL is not configured", f"An API key was given without a URL.\n{INSTRUCTIONS}")
    found = find_local_stack(folder)
    if found is None:
        missing = "API URL is" if key else "API URL and API key are"
        raise UsageError(f"{missing} not configured", INSTRUCTIONS)
    return replace(found, key="") if auth == IAM else found


def _find_other_credentials(url: str, auth: str, folder: Path) -> Configuration:
    """Return the key of the local stack if `url` is its URL, or else the configuration for signed requests."""
    local = None if auth == IAM else find_local_stack(folder)
    if local is not None and local.url == url:
        return local
    if auth == KEY:
        raise UsageError("API key is not configured", f"No API key was found for {url}.\n{INSTRUCTIONS}")
    return Configuration(url, "")


def _read_auth(environment: Mapping[str, str]) -> str:
    auth = environment.get(AUTH_VARIABLE, "").lower()
    if auth not in ("", IAM, KEY):
        raise UsageError(f"Invalid {AUTH_VARIABLE}", f"{auth[:100]!r} is neither `{IAM}` nor `{KEY}`.")
    return auth


def find_local_stack(folder: Path) -> Configuration | None:
    """Read the `.local/stack.json` that `make run` and `make up` write, in `folder` or the nearest parent folder."""
    for parent in (folder, *folder.parents):
        path = parent / STATE_FILE
        if not path.is_file():
            continue
        try:
            state = json.loads(path.read_text())
            url, key, hub_url = str(state["api_url"]), str(state["api_key"]), str(state.get("hub_url") or "")
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                "Cannot read the state of the local stack",
                f"{path} is invalid or was not written by `make run` or `make up`.",
                remedy=f"Run `make up` to write it again, or set {URL_VARIABLE} and {KEY_VARIABLE}.",
            ) from None
        for found in filter(None, (url, hub_url)):
            if not is_loopback(found):
                raise UsageError(
                    "The URL of the local stack is not a loopback URL",
                    f"{path} contains {found[:200]}. For a remote API, set {URL_VARIABLE} and {KEY_VARIABLE}.",
                )
        url = check_url(url, f"API URL in {path}").rstrip("/")
        return Configuration(url, _check_key(key, str(path)), hub_url=hub_url)
    return None


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError("Cannot read the API key", f"{path}: {reason}.") from None


def _check_key(key: str, origin: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            "Invalid API key",
            f"The API key in {origin} is {'invalid' if key else 'empty'}. An API key consists of printable ASCII "
            "characters without spaces.",
        )
    return key
