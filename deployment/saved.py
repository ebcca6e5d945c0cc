"""The answers to the prompts of the last deployment, which the SAM CLI saves in samconfig.toml."""

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SavedAnswers:
    parameters: dict[str, str]
    stack_name: str | None
    region: str | None
    profile: str | None


def read_saved_answers(path: Path) -> SavedAnswers:
    """Read the answers from samconfig.toml. Parameters with their defaults are saved too."""
    environment = tomllib.loads(path.read_text()).get("default", {})
    settings = environment.get("global", {}).get("parameters", {}) | environment.get("deploy", {}).get("parameters", {})
    overrides = settings.get("parameter_overrides", "")
    # The SAM CLI writes a string, and accepts a list.
    text = overrides if isinstance(overrides, str) else " ".join(overrides)
    return SavedAnswers(
        parse_overrides(text), settings.get("stack_name"), settings.get("region"), settings.get("profile")
    )


def parse_overrides(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(text))


def write_overrides(parameters: dict[str, str]) -> str:
    """Write parameters as the SAM CLI reads them. Without quotes, it would not accept an empty value."""
    return " ".join('{}="{}"'.format(name, value.replace('"', '\\"')) for name, value in parameters.items())
