"""What an inspection concludes of a model."""

from dataclasses import dataclass, replace
from enum import StrEnum

from modelhaul.domain.findings import FileInspection, FileVerdict

_MAX_RECORDED = 100  # flags in a model's record
_MIN_RECORDED = 8
_MAX_FLAG = 300  # characters


class PicklePolicy(StrEnum):
    """What becomes of a model with a pickle that could run something when it is loaded."""

    BLOCK = "block"  # it fails, and is removed
    WARN = "warn"  # it is published, and its record says so
    OFF = "off"  # files are not inspected


class GateVerdict(StrEnum):
    CLEAN = "clean"  # every file was recognized, by its whole content, as a format that cannot run code
    UNSAFE = "unsafe"  # a file can run code; published because the policy only warns
    UNSCANNED = "unscanned"  # the policy is off, or a file is code or was not recognized: `flags` names it


class SecondOpinion(StrEnum):
    """Another scanner's, on the pickles that the gate has read."""

    CLEAN = "clean"
    UNVERIFIED = "unverified"  # it could not tell, of one at least, or did not answer
    MALICIOUS = "malicious"


@dataclass(frozen=True, slots=True)
class PickleOpinion:
    """At most 20 `reasons`, of what is MALICIOUS."""

    verdict: SecondOpinion
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the inspection of a published model found.

    `reasons` (at most 20) say why it is UNSAFE, `flags` what a reader should know: `kind: path` of findings,
    `not-scanned: path: reason`, `incomplete: index: …`, `left-out: path: reason`. `files` has each published file,
    `scanned` (path, sha256) those that a loader of pickles reads, `left_out` the paths of files that were not
    published. `second_opinion` is None if there was no pickle to ask about.
    """

    verdict: GateVerdict
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    scanned: tuple[tuple[str, str], ...] = ()
    second_opinion: SecondOpinion | None = None
    files: tuple[FileInspection, ...] = ()
    left_out: tuple[str, ...] = ()

    def shorten(self, models: int = 1) -> "GateReport":
        """What fits into a model's record, files first that are not clean.

        DynamoDB limits a record to 400 KB, and the `models` that one task ends with to 4 MB in one transaction.
        """
        kept = max(_MIN_RECORDED, _MAX_RECORDED // models)
        flags = tuple(flag if len(flag) <= _MAX_FLAG else f"{flag[:_MAX_FLAG]}…" for flag in self.flags)
        files = sorted(self.files, key=lambda file: (file.verdict is FileVerdict.CLEAN, file.path))
        return replace(
            self,
            flags=flags[:kept],
            scanned=self.scanned[:kept],
            files=tuple(file.shorten() for file in files[: kept // 2]),
            left_out=self.left_out[: kept // 4],
        )
