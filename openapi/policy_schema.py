"""Generate the JSON Schema of policy documents."""

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from modelhaul.policy.document import Policy

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "policy.schema.json"


class _NoNull(GenerateJsonSchema):
    """Generator of schemas in which optional members are absent, and not null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        is_shown = isinstance(schema.get("default"), str)
        return super().default_schema(schema) if is_shown else self.generate_inner(schema["schema"])


def render_schema() -> str:
    schema = Policy.model_json_schema(schema_generator=_NoNull)
    described = {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "Policy of Modelhaul"}
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"
