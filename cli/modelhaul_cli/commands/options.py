"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_CONNECTION = "Connection and output"

ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url",
        metavar="URL",
        help="The API's address with its stage. Else MODELHAUL_API_URL.",
        rich_help_panel=_CONNECTION,
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="A file with the API's key. Else MODELHAUL_API_KEY.",
        rich_help_panel=_CONNECTION,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="JSON on stdout: one document; a line for each change while following.",
        rich_help_panel=_CONNECTION,
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not follow the import to its end.")]
ExistOk = Annotated[
    bool,
    typer.Option(
        "--exist-ok", help="It is no error if the model is here already; if another import brings it, follow that one."
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="Branch, tag or commit; also NAME@REV. Default: main."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="PATTERN", help="Only files that match ('*.json'). May be repeated."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="PATTERN", help="No files that match. May be repeated."),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=16, help="Transfers at once.")]
ModelId = Annotated[str, typer.Argument(metavar="MODEL_ID", help="As `modelhaul ls` shows it.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK_ID", help="As a submit or `modelhaul tasks` shows it.")]


class Weights(StrEnum):
    ALL = "all"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"


WeightsChoice = Annotated[
    Weights | None,
    typer.Option("--weights", help="Only weights of this format, where a model has several. Default: all."),
]


class SourceChoice(StrEnum):
    HUGGINGFACE = "huggingface"
    GITHUB = "github"
    LOCAL = "local"


Source = Annotated[
    SourceChoice | None, typer.Option("--source", help="Only those from the Hub, from GitHub or from archives.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N.")]
