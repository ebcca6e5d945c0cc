"""The limits and required files that the operator configures for archives."""

from dataclasses import dataclass

from modelhaul.archives.entries import ArchiveLimits
from modelhaul.domain.required_files import RequiredFiles


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    limits: ArchiveLimits
    required_files: RequiredFiles
