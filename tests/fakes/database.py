"""The repositories of one deployment, together."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from modelhaul.ports.audit_log import AuditLog, AuditReader
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository, GroupLeases
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.quotas import QuotaRepository
from modelhaul.ports.segments import SegmentRepository
from modelhaul.ports.tasks import TaskRepository
from tests.fakes.audit_log import InMemoryAuditLog
from tests.fakes.content_index import InMemoryContentIndex
from tests.fakes.file_repository import InMemoryFileRepository
from tests.fakes.hub_model_repository import InMemoryHubModelRepository
from tests.fakes.import_repository import InMemoryImportRepository
from tests.fakes.model_repository import InMemoryModelRepository
from tests.fakes.quota_repository import InMemoryQuotaRepository
from tests.fakes.segments import InMemorySegmentRepository
from tests.fakes.tables import InMemoryTables
from tests.fakes.task_repository import InMemoryTaskRepository


@dataclass(slots=True)
class Database:
    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    leases: GroupLeases
    segments: SegmentRepository
    content: ContentIndex
    hub_models: HubModelRepository
    quotas: QuotaRepository
    audit: AuditLog
    audit_reader: AuditReader

    def map(self, wrap: Callable[[Any], Any]) -> "Database":
        """With each repository wrapped once, also if two fields have it."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        wrapped = {id(part): wrap(part) for part in {id(part): part for part in parts.values()}.values()}
        return Database(**{name: wrapped[id(part)] for name, part in parts.items()})


def build_database(tables: InMemoryTables) -> Database:
    files = InMemoryFileRepository(tables)
    audit = InMemoryAuditLog(tables)
    return Database(
        tasks=InMemoryTaskRepository(tables),
        models=InMemoryModelRepository(tables),
        imports=InMemoryImportRepository(tables),
        files=files,
        leases=files,
        segments=InMemorySegmentRepository(tables),
        content=InMemoryContentIndex(tables),
        hub_models=InMemoryHubModelRepository(tables),
        quotas=InMemoryQuotaRepository(tables),
        audit=audit,
        audit_reader=audit,
    )
