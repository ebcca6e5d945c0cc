"""Examples of answers, shown by the same code as real ones."""

from datetime import UTC, datetime
from typing import Any

from modelhaul.model import Model, ModelStatus, ResolvedModel, Source

BUCKET = "modelhaul-modelsbucket-1a2b3c"
CREATED = datetime(2025, 6, 22, 12, 0, 0, tzinfo=UTC)
UPDATED = datetime(2025, 6, 22, 12, 0, 41, tzinfo=UTC)
TASK_ID = "5f0c3b53-7f5b-4a0e-9d2a-0d8b1e6f4c11"
ARCHIVE_TASK_ID = "b9d5f1f0-4a53-4a9c-8f2e-6a0f7f4f9a20"

HUB_MODEL = Model(
    model_id="",
    resolved=ResolvedModel(
        Source.HUGGINGFACE, "google-bert/bert-base-uncased", "main", "86b5e0934494bd15c9632b12f734a8a67f723594"
    ),
    status=ModelStatus.IMPORTING,
    task_id=TASK_ID,
    created_at=CREATED,
    updated_at=UPDATED,
)
EXAMPLES: dict[str, dict[str, Any]] = {}
