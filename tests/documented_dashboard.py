"""The documented structure of a CloudWatch dashboard. CloudWatch accepts unknown properties and ignores them."""

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parent / "template" / "dashboard.schema.json").read_text())
)
