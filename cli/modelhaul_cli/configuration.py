"""Finds the API's address and key: options, environment, or the local stack of this checkout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelhaul_cli.addresses import check_address, is_loopback
from modelhaul_cli.errors import UsageError

URL_VARIABLE = "MODELHAUL_API_URL"
KEY_VARIABLE = "MODELHAUL_API_KEY"
STATE_FILE = Path(".local") / "stack.json"

_WAYS = f"""\
Set {URL_VARIABLE} and {KEY_VARIABLE}, or give --api-url and --api-key-file, or work in a checkout whose local stack
is up (`make run`, `make up`): its .local/stack.json is read here and in the folders above.
A stack that is deployed to AWS tells its address and the id of its key, and the id leads to the key:
  aws cloudformation describe-stacks --stack-name modelhaul --output text \\
    --query "Stacks[0].Outputs[?OutputKey=='ApiUrl' || OutputKey=='ApiKeyId'].[OutputKey, OutputValue]"
  aws apigateway get-api-key --include-value --query value --output text --api-key ID
A stack with AuthMode=IAM takes no key, and this program does not sign requests (docs/access.md)."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`url` has the stage (`…/v1`) and no slash at its end. `options` repeat on a command line what led here."""

    url: str
    key: str = field(repr=False)
    options: tuple[str, ...] = ()


def find_configuration(
    api_url: str | None, api_key_file: Path | None, environment: Mapping[str, str], folder: Path
) -> Configuration:
    """Options come before the environment, and that before the local stack found from `folder` upwards.

    A local stack's address goes with its own key only, so that a file in somebody's checkout neither gets a key nor
    gives one away. Raises UsageError.
    """
    options: list[str] = []
    key = environment.get(KEY_VARIABLE, "")
    if api_key_file is not None:
        key = _read_key(api_key_file)
        options += ["--api-key-file", str(api_key_file)]
    url = api_url or environment.get(URL_VARIABLE, "")
    if api_url:
        options += ["--api-url", api_url]
    if url:
        url = check_address(url, "The API's address").rstrip("/")
        if not key:
            local = find_local_stack(folder)
            if local is None or local.url != url:
                raise UsageError("The API's key is not configured", f"There is an address ({url}) and no key.\n{_WAYS}")
            key = local.key
        return Configuration(url, _check_key(key), tuple(options))
    if api_key_file is not None:
        raise UsageError("The API's address is not configured", f"There is a key and no address.\n{_WAYS}")
    found = find_local_stack(folder)
    if found is None:
        what = "address is" if key else "address and key are"
        raise UsageError(f"The API's {what} not configured", _WAYS)
    return found


def find_local_stack(folder: Path) -> Configuration | None:
    """The one that `make run` or `make up` left in `.local/stack.json` of `folder` or the nearest folder above."""
    for parent in (folder, *folder.parents):
        path = parent / STATE_FILE
        if not path.is_file():
            continue
        try:
            state = json.loads(path.read_text())
            url, key = str(state["api_url"]), str(state["api_key"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                "The local stack's state cannot be read", f"{path} is not what `make up` writes."
            ) from None
        if not is_loopback(url):
            raise UsageError(
                "The local stack is not on this machine",
                f"{path} names {url[:200]}; for an API elsewhere set {URL_VARIABLE} and {KEY_VARIABLE}.",
            )
        return Configuration(check_address(url, f"The address in {path}").rstrip("/"), _check_key(key))
    return None


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError("The API's key cannot be read", f"{path}: {reason}.") from None


def _check_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("The API's key is none", "It must be one word of letters, digits and signs.")
    return key
