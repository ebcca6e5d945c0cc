"""Setup and error handling that all commands share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from modelhaul_cli.client import ApiClient
from modelhaul_cli.configuration import Configuration, find_configuration
from modelhaul_cli.errors import AbortedError, CommandError
from modelhaul_cli.follower import Follower
from modelhaul_cli.output import Screen


@dataclass(frozen=True, slots=True)
class Session:
    configuration: Configuration
    screen: Screen
    api: ApiClient
    follower: Follower


@contextmanager
def open_session(api_url: str | None, api_key_file: Path | None, *, as_json: bool) -> Iterator[Session]:
    """Connect to the API. Errors are handled as by `handle_errors`."""
    screen = Screen(as_json=as_json)
    with handle_errors(screen):
        configuration = find_configuration(api_url, api_key_file, os.environ, Path.cwd())
        api = ApiClient(configuration, screen.print_status)
        yield Session(configuration, screen, api, Follower(api, screen, configuration.options))


@contextmanager
def handle_errors(screen: Screen) -> Iterator[None]:
    """Print a CommandError of the block, which determines the exit code of the process."""
    try:
        try:
            yield
        except KeyboardInterrupt:
            raise AbortedError("Interrupted") from None
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise CommandError("Local I/O error", f"{where}{error.strerror or error}.") from error
    except CommandError as error:
        screen.print_error(error)
        raise typer.Exit(error.code) from None
