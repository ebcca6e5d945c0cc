"""The facts about an import that rules have conditions on. Facts that are not known yet are open."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import PurePosixPath
from typing import Final

from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.findings import FindingKind, Severity
from modelhaul.domain.gate import GateVerdict
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.inspection.loaders import is_training_state, is_weight_name

UNKNOWN_LICENSE = "unknown"
UNKNOWN_FORMAT = "unknown"
FORMATS = frozenset(
    {
        "gguf", "hdf5", "jinja", "joblib", "json", "keras", "keras-metadata", "msgpack", "npy", "npz", "onnx", "pickle",
        "safetensors", "saved-model", "sentencepiece", "tar", "tensorflow-graph", "text", "torch-export",
        "torch-legacy", "torch-package", "torch-zip", "torchscript", UNKNOWN_FORMAT, "xml", "yaml", "zip",
    }
)  # fmt: skip
"""Formats that the inspection recognizes, without the compression around them. `unknown`: all others."""
_OTHER_LICENSE = "other"
_NOT_IN_LICENSE = re.compile(r"[^a-z0-9._-]+")
_MAX_LICENSE = 100  # characters


class Open(Enum):
    """Type of `OPEN`, which stands for a fact that is not known yet."""

    OPEN = "open"


OPEN: Final = Open.OPEN


@dataclass(frozen=True, slots=True)
class KnownValues[T]:
    """The values of a fact that are known so far. `is_complete`: no more values will be found."""

    values: frozenset[T] = frozenset()
    is_complete: bool = False


type FormatChoice = frozenset[str]
"""The formats that one file may have. A file whose format is certain has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFacts:
    """Facts about one model. What is known never changes while the import runs: steps only add facts.

    `name` is the canonical name at the source. `licenses` are identifiers of the Hub in lower case (`other/NAME` for
    the license `other` with a name), and `unknown` if the model names none. `gated` is False for sources without
    gated models. `committed_at` is None if the model has no commit. `size` is the sum of the selected files in bytes.
    `formats` has the possible formats of each selected file of weights. `findings` are those of the inspection,
    `verdict` is the inspection's verdict on the whole model.
    """

    now: datetime
    source: Source
    name: str | Open = OPEN
    licenses: KnownValues[str] = KnownValues()
    gated: bool | Open = OPEN
    committed_at: datetime | Open | None = OPEN
    size: int | Open = OPEN
    formats: KnownValues[FormatChoice] = KnownValues()
    findings: KnownValues[tuple[FindingKind, Severity]] = KnownValues()
    verdict: GateVerdict | Open = OPEN


def know_model(model: ResolvedModel, now: datetime) -> ImportFacts:
    """Return what is known when a model is resolved. Its files may name further licenses.

    Only the Hub has gated models. Only a model from an archive has no commit.
    """
    is_hub = model.source is Source.HUGGINGFACE
    no_commit = None if model.source is Source.LOCAL else OPEN
    return ImportFacts(
        now=now,
        source=model.source,
        name=model.name,
        licenses=KnownValues(list_licenses(model.card)),
        gated=(OPEN if model.gated is None else model.gated) if is_hub else False,
        committed_at=model.committed_at or no_commit,
    )


def know_files(facts: ImportFacts, files: Iterable[SourceFile]) -> ImportFacts:
    """Return the facts with those of a model's selected files, before they are transferred."""
    listed = [file for file in files if file.kind is FileKind.FILE]
    return replace(facts, size=sum(file.size for file in listed), formats=list_formats(listed))


def list_licenses(card: ModelCard | None) -> frozenset[str]:
    """Return the licenses that a card names, and `unknown` if it has others. Empty if it names none: files may."""
    if card is None:
        return frozenset()
    named = frozenset(_name_license(identifier, card.license_name) for identifier in card.licenses)
    return named | {UNKNOWN_LICENSE} if card.omits_licenses else named


def _name_license(identifier: str, name: str | None) -> str:
    identifier = _clean_license(identifier) or UNKNOWN_LICENSE
    cleaned = _clean_license(name or "")
    return f"{identifier}/{cleaned}" if identifier == _OTHER_LICENSE and cleaned else identifier


def _clean_license(text: str) -> str:
    return _NOT_IN_LICENSE.sub("-", text.lower()).strip("-")[:_MAX_LICENSE]


def find_formats(path: str) -> FormatChoice:
    """Return the formats that a file of weights may have, by its name.

    Files named `.safetensors` have this format, or their import fails. Only the name in lower case requires the format.
    No other file is read as safetensors.
    """
    suffix = PurePosixPath(path).suffix
    if suffix == ".safetensors":
        return frozenset({"safetensors"})
    return FORMATS if suffix.lower() == ".safetensors" else FORMATS - {"safetensors"}


def list_formats(files: Iterable[SourceFile]) -> KnownValues[FormatChoice]:
    """Return the possible formats of the weights among a model's selected files, before they are transferred.

    The inspection may recognize further files as weights, whose names do not show it. It may leave training state out
    of the published model.
    """
    return KnownValues(
        frozenset(
            find_formats(f.path)
            for f in files
            if f.kind is FileKind.FILE and is_weight_name(f.path) and not is_training_state(f.path)
        )
    )


def name_format(inspected: str) -> str:
    """Return the format in `FORMATS` for a format of the inspection, such as `pickle in gzip`."""
    base = inspected.partition(" in ")[0]
    if base.startswith("joblib"):  # joblib's old compression
        return "joblib"
    return base if base in FORMATS else UNKNOWN_FORMAT
