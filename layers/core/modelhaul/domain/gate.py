"""Result of the inspection of a model."""

from dataclasses import dataclass, replace
from enum import StrEnum

from modelhaul.domain.findings import ContentReport, FileInspection, FileVerdict

_MAX_FLAGS = 100  # in a model's record
_MIN_FLAGS = 8
_MAX_FLAG_LENGTH = 300  # characters


class PicklePolicy(StrEnum):
    """Treatment of models with a pickle that can run code when it is loaded."""

    BLOCK = "block"  # the import of the model fails, and its files are removed
    WARN = "warn"  # the model is published; findings are recorded on the model
    OFF = "off"  # files are not inspected


class GateVerdict(StrEnum):
    CLEAN = "clean"  # the whole content of every file is in a format that cannot run code
    UNSAFE = "unsafe"  # a file can run code; the model was published because the policy is WARN
    UNSCANNED = "unscanned"  # the policy is OFF, or `flags` names a file that is code or was not recognized


class SecondOpinion(StrEnum):
    """Verdict of the second scanner on the pickles that the inspection has read."""

    CLEAN = "clean"
    UNVERIFIED = "unverified"  # no verdict on at least one pickle, or no response
    MALICIOUS = "malicious"


@dataclass(frozen=True, slots=True)
class PickleOpinion:
    """Verdict on one pickle. `reasons` (at most 20) say why it is MALICIOUS."""

    verdict: SecondOpinion
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Result of the checks that concern one file, regardless of the other files of its model.

    `problem`: why the content does not have the format of the file's name, None if it has. `placeholder`: what the file
    is instead of weights, None if it may be weights. `report`: the result of the inspection without its pickles, None
    with PicklePolicy.OFF. `opinion`: the second scanner's verdict, None if the file has no pickles.
    """

    problem: str | None = None
    placeholder: str | None = None
    report: ContentReport | None = None
    opinion: PickleOpinion | None = None


@dataclass(frozen=True, slots=True)
class GateReport:
    """Result of the inspection of a published model.

    `reasons` (at most 20) say why the model is UNSAFE. `flags` are notes for readers: `kind: path` for findings,
    `not-scanned: path: reason`, `incomplete: index: …`, `left-out: path: reason`. `files` has each published file,
    `scanned` the (path, sha256) of files that pickle loaders read, `left_out` the paths of files that were not
    published. `second_opinion` is None if the model has no pickles.
    """

    verdict: GateVerdict
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    scanned: tuple[tuple[str, str], ...] = ()
    second_opinion: SecondOpinion | None = None
    files: tuple[FileInspection, ...] = ()
    left_out: tuple[str, ...] = ()

    def shorten(self, models: int = 1) -> "GateReport":
        """Return a copy that fits into a model's record. Files that are not clean come first.

        DynamoDB limits an item to 400 KB, and a transaction to 4 MB. A task writes all its `models` in one transaction.
        """
        kept = max(_MIN_FLAGS, _MAX_FLAGS // models)
        flags = tuple(f if len(f) <= _MAX_FLAG_LENGTH else f"{f[:_MAX_FLAG_LENGTH]}…" for f in self.flags)
        files = sorted(self.files, key=lambda file: (file.verdict is FileVerdict.CLEAN, file.path))
        return replace(
            self,
            flags=flags[:kept],
            scanned=self.scanned[:kept],
            files=tuple(file.shorten() for file in files[: kept // 2]),
            left_out=self.left_out[: kept // 4],
        )
