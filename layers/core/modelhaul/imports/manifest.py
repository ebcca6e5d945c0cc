"""The manifest of a published model."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from modelhaul.catalog.presentation import present_inspection, summarize_gate
from modelhaul.domain.files import FileRecord, SourceFile
from modelhaul.domain.gate import GateReport
from modelhaul.domain.models import Model
from modelhaul.domain.tasks import Task


def write_manifest(
    task: Task, model: Model, records: Sequence[FileRecord], not_followed: Sequence[SourceFile], gate: GateReport
) -> bytes:
    """Return the model's manifest as JSON.

    It has the path, size, sha256 and published digest of each file, the inspection's findings, and the paths that were
    not followed: symlinks with their blob, submodules with their commit. `selection` is present only for a model that
    is a part of its source.
    """
    resolved = model.resolved
    inspections = {file.path: present_inspection(file) for file in gate.files}
    paths = [record.file.path.removeprefix(resolved.root) for record in records]
    return json.dumps(
        {
            "version": 1,
            "model_id": model.model_id,
            "source": resolved.source,
            "name": resolved.name,
            "hub_id": resolved.hub_id,
            "revision": resolved.revision,
            "commit": resolved.commit,
            **({} if resolved.selection.is_whole else {"selection": asdict(resolved.selection)}),
            "prefix": resolved.prefix,
            "task_id": task.id,
            "gate": summarize_gate(gate),
            "files": [
                {
                    "path": path,
                    "size": r.file.size,
                    "sha256": r.sha256,
                    "source_digest": str(r.file.digest),
                    **({"inspection": inspections[path]} if path in inspections else {}),
                }
                for path, r in zip(paths, records, strict=True)
            ],
            "not_followed": [
                {"path": f.path.removeprefix(resolved.root), "kind": f.kind, "object": f.digest.value}
                for f in not_followed
            ],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
