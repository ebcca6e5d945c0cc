"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_CONNECTION = "Connection and output"

MORE_RESULTS = "More results are available. Increase --limit to show them."

ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url",
        metavar="URL",
        help="URL of the API, including the stage. Default: $MODELHAUL_API_URL.",
        rich_help_panel=_CONNECTION,
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="File that contains the API key. Default: the key in $MODELHAUL_API_KEY.",
        rich_help_panel=_CONNECTION,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON to stdout: one document, or one line for each change while following an import.",
        rich_help_panel=_CONNECTION,
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the task ID and exit without following the import.")]
ExistOk = Annotated[
    bool,
    typer.Option(
        "--exist-ok",
        help="Succeed if the model already exists. If it is already being imported, follow that import.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="REV",
        help="Branch, tag or commit. You can also append @REV to the model or repository. Default: main.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="PATTERN", help="Import only files that match this pattern, such as '*.json'. Repeatable."
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="PATTERN", help="Skip files that match this pattern. Repeatable."),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=16, help="Number of concurrent transfers.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name, NAME@REVISION or ID of an imported model, as shown by `modelhaul ls`. The start of an ID is "
        "enough; `rm` requires 8 characters of it.",
    ),
]
Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="ID of a task, as shown by `modelhaul tasks`, or its NAME or NAME@REVISION: as submitted, or of a model "
        "that it imported. The start of an ID is enough.",
    ),
]


class Weights(StrEnum):
    ALL = "all"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"


WeightsChoice = Annotated[
    Weights | None,
    typer.Option(
        "--weights", help="Import only weights in this format if the model has several formats. Default: all."
    ),
]


class SourceChoice(StrEnum):
    HUGGINGFACE = "huggingface"
    GITHUB = "github"
    LOCAL = "local"


Source = Annotated[SourceChoice | None, typer.Option("--source", help="Filter by source. `local` means ZIP archives.")]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum number of entries to show.")]
