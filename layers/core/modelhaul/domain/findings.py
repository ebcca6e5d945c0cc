"""Result of the inspection of a file: its format, a verdict and findings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

_MAX_FINDINGS = 3  # per file in a model's record
_MAX_TEXT_LENGTH = 120  # characters


class Severity(StrEnum):
    """`high`: a common loader runs code, or accesses resources outside the model, with its default options.

    `medium`: code that runs only if the user opts in, or only in a restricted loader. `low`: informational.
    """

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class FindingKind(StrEnum):
    """Content that can run code or access resources outside the model. `docs/inspection.md` lists the loaders."""

    PICKLE_IMPORT = "pickle-import"  # a pickle imports a name that is not on the allow-list
    PICKLE_NOT_CANONICAL = "pickle-not-canonical"  # bytes that no pickler writes, but that an unpickler might run
    AMBIGUOUS_ARCHIVE = "ambiguous-archive"  # an archive that different readers read differently
    TORCHSCRIPT = "torchscript"  # a compiled program that torch.jit.load runs
    TORCH_PACKAGE = "torch-package"  # Python sources that torch.package runs
    NATIVE_LIBRARY = "native-library"  # ELF, PE or Mach-O
    CODE = "code"  # source code or a script
    CODE_ARCHIVE = "code-archive"  # .mar, .whl, .jar, .nemo: archives that contain code
    KERAS_LAMBDA = "keras-lambda"  # a layer with Python bytecode
    KERAS_MODULE = "keras-module"  # a layer that names a Python module outside Keras
    KERAS = "keras"  # a Keras file in which not all layers could be read
    TENSORFLOW_OP = "tensorflow-op"  # an operation that reads or writes files, or calls Python
    ONNX_EXTERNAL_DATA = "onnx-external-data"  # tensors in a file outside the model's directory
    CHAT_TEMPLATE = "chat-template"  # a plain Jinja template
    UNSAFE_TEMPLATE = "unsafe-template"  # a template that accesses Python internals or other files
    AUTO_MAP = "auto-map"  # names classes of this repository, which trust_remote_code loads
    REMOTE_CODE = "remote-code"  # names classes of another repository
    YAML_CONSTRUCTOR = "yaml-constructor"  # a YAML tag that calls or imports Python objects
    XML_ENTITY = "xml-entity"  # a document type declaration with entities


class FileVerdict(StrEnum):
    CLEAN = "clean"  # the whole content is in a format that cannot run code
    UNSCANNED = "unscanned"  # the content was not recognized, was not parsed to its end, or is code
    UNSAFE = "unsafe"  # the file has a finding of severity HIGH


@dataclass(frozen=True, slots=True)
class Finding:
    """`detail` is one line that says what was found and where in the file, such as `Pickle imports os.system`."""

    kind: FindingKind
    severity: Severity
    detail: str


@dataclass(frozen=True, slots=True)
class ContentReport:
    """The recognized format of a file's content, and the findings in it.

    `format` is a short constant name, such as `safetensors` or `torch-zip`, or `unknown`. `reason` says why the content
    was not parsed to its end in that format, and is None if it was. `is_loadable`: pickle loaders read such content
    (pickles, archives of pickles, numpy arrays, compressed files), regardless of the file's name. `unread`: whether
    loadable content was not parsed to its end, for archives and compressed files. It is None for other content, for
    which `reason` shows this. `pickles` are the concatenated pickles of loadable content, for the second scanner. It is
    None if they are unknown or exceed 4 MiB.
    """

    format: str
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    is_loadable: bool = False
    pickles: bytes | None = None
    unread: bool | None = None

    @property
    def is_unread(self) -> bool:
        """Return whether a pickle loader would read content that was not parsed to its end."""
        return self.is_loadable and self.reason is not None if self.unread is None else self.unread

    @property
    def verdict(self) -> FileVerdict:
        if any(finding.severity is Severity.HIGH for finding in self.findings):
            return FileVerdict.UNSAFE
        if self.reason is not None or any(finding.severity is Severity.MEDIUM for finding in self.findings):
            return FileVerdict.UNSCANNED
        return FileVerdict.CLEAN


@dataclass(frozen=True, slots=True)
class FileInspection:
    """The recorded result for one published file. `path` is relative to the model's root."""

    path: str
    sha256: str
    format: str
    verdict: FileVerdict
    reason: str | None = None
    findings: tuple[Finding, ...] = ()

    def shorten(self) -> "FileInspection":
        """Return a copy with at most three findings, and at most 120 characters in each text."""
        kept = rank_findings(self.findings)[:_MAX_FINDINGS]
        findings = tuple(replace(finding, detail=finding.detail[:_MAX_TEXT_LENGTH]) for finding in kept)
        return replace(self, reason=self.reason and self.reason[:_MAX_TEXT_LENGTH], findings=findings)


_ORDER = {Severity.HIGH: 0, Severity.MEDIUM: 1, Severity.LOW: 2}


def limit_findings(findings: Iterable[Finding], limit: int) -> tuple[Finding, ...]:
    """Return at most `limit` distinct findings, the most severe first.

    The first of each kind and severity is kept, so that findings do not hide others from rules. Of the rest, the least
    severe are dropped.
    """
    ranked = rank_findings(findings)
    if len(ranked) <= limit:
        return ranked
    first = {(finding.kind, finding.severity): finding for finding in reversed(ranked)}
    return rank_findings(tuple(dict.fromkeys((*rank_findings(first.values()), *ranked)))[:limit])


def rank_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the distinct findings, the most severe first."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: _ORDER[finding.severity]))


def list_findings(kind: FindingKind, severity: Severity, details: Sequence[str]) -> tuple[Finding, ...]:
    """Return one finding for each distinct text in `details`, in order."""
    return tuple(Finding(kind, severity, detail) for detail in dict.fromkeys(details))
