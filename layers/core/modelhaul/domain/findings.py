"""What the inspection of a file concludes: its format, a verdict, and findings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

_MAX_KEPT = 3  # findings of one file in a model's record
_MAX_TEXT = 120  # characters


class Severity(StrEnum):
    """HIGH: a common loader runs code or reaches outside the model with its default options.

    MEDIUM: code that runs only if a user opts in, or in a loader that restricts it. LOW: worth knowing.
    """

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class FindingKind(StrEnum):
    """What can run, or reach outside the model. `docs/inspection.md` names the loader for each kind."""

    PICKLE_IMPORT = "pickle-import"  # a pickle imports something that is not on the allow-list
    PICKLE_NOT_CANONICAL = "pickle-not-canonical"  # bytes that no pickler writes, and that an unpickler might run
    AMBIGUOUS_ARCHIVE = "ambiguous-archive"  # an archive that readers read differently
    TORCHSCRIPT = "torchscript"  # a compiled program, run by torch.jit.load
    TORCH_PACKAGE = "torch-package"  # Python sources, run by torch.package
    NATIVE_LIBRARY = "native-library"  # ELF, PE or Mach-O
    CODE = "code"  # source code or a script
    CODE_ARCHIVE = "code-archive"  # .mar, .whl, .jar, .nemo: archives that carry code
    KERAS_LAMBDA = "keras-lambda"  # a layer with Python byte code
    KERAS_MODULE = "keras-module"  # a layer that names a Python module outside Keras
    KERAS = "keras"  # a Keras file whose layers were not all read
    TENSORFLOW_OP = "tensorflow-op"  # an operation that reads or writes files, or calls Python
    ONNX_EXTERNAL_DATA = "onnx-external-data"  # tensors in a file outside the model's folder
    CHAT_TEMPLATE = "chat-template"  # a plain Jinja template
    UNSAFE_TEMPLATE = "unsafe-template"  # a template that reaches for Python's internals or other files
    AUTO_MAP = "auto-map"  # names classes of this repository, loaded with trust_remote_code
    REMOTE_CODE = "remote-code"  # names classes of another repository
    YAML_CONSTRUCTOR = "yaml-constructor"  # a YAML tag that calls or imports
    XML_ENTITY = "xml-entity"  # a document type with entities


class FileVerdict(StrEnum):
    CLEAN = "clean"  # its whole content is a format that cannot run code
    UNSCANNED = "unscanned"  # not recognized, not parsed to its end, or code
    UNSAFE = "unsafe"  # has a finding of severity HIGH


@dataclass(frozen=True, slots=True)
class Finding:
    """`detail` is one line: what was found and where in the file, such as `imports os.system`."""

    kind: FindingKind
    severity: Severity
    detail: str


@dataclass(frozen=True, slots=True)
class ContentReport:
    """What one file's content was recognized as.

    `format` is a short constant name, such as `safetensors` or `torch-zip`; `unknown` if nothing fits. `reason` says
    why the content was not parsed to its end as that format, and is None if it was. `is_loadable`: a loader of pickles
    reads content like this (pickles, archives of pickles, numpy arrays, compressed files), whatever its name.
    `unread`: whether such content was not parsed to its end, where that does not follow from `reason`: in archives.
    `pickles` are the pickles in loadable content, concatenated, for the second scanner; None if they are not known or
    have more than 4 MiB.
    """

    format: str
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    is_loadable: bool = False
    pickles: bytes | None = None
    unread: bool | None = None

    @property
    def is_unread(self) -> bool:
        """Whether a loader of pickles would read content that was not parsed to its end."""
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
    """What is recorded of one published file: `path` is relative to the model's root."""

    path: str
    sha256: str
    format: str
    verdict: FileVerdict
    reason: str | None = None
    findings: tuple[Finding, ...] = ()

    def shorten(self) -> "FileInspection":
        """With at most three findings, and at most 120 characters in a text."""
        kept = limit_findings(self.findings, _MAX_KEPT)
        findings = tuple(replace(finding, detail=finding.detail[:_MAX_TEXT]) for finding in kept)
        return replace(self, reason=self.reason and self.reason[:_MAX_TEXT], findings=findings)


_ORDER = {Severity.HIGH: 0, Severity.MEDIUM: 1, Severity.LOW: 2}


def limit_findings(findings: Iterable[Finding], most: int) -> tuple[Finding, ...]:
    """At most `most` different findings, the most severe first, so that none of severity HIGH hides behind others."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: _ORDER[finding.severity]))[:most]


def list_findings(kind: FindingKind, severity: Severity, details: Sequence[str]) -> tuple[Finding, ...]:
    """One finding for each of `details`, in order, without repetition."""
    return tuple(Finding(kind, severity, detail) for detail in dict.fromkeys(details))
