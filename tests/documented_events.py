"""The examples and the schema of docs/events.md."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

_DOCUMENT = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```json\n(.*?)^```", _DOCUMENT, re.MULTILINE | re.DOTALL)

EXAMPLES: list[dict[str, Any]]
SCHEMA: dict[str, Any]
*EXAMPLES, SCHEMA = map(json.loads, _BLOCKS)

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
