"""The examples and the schema of docs/events.md."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

_DOCUMENT = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")
_IMPORTS, _, _AUDIT = _DOCUMENT.partition("\n## Audit events\n")


def _read_blocks(text: str) -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


*EXAMPLES, SCHEMA = _read_blocks(_IMPORTS)
*AUDIT_EXAMPLES, AUDIT_SCHEMA = _read_blocks(_AUDIT)

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
AUDIT_VALIDATOR = jsonschema.Draft202012Validator(AUDIT_SCHEMA)
