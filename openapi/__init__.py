"""Generator of the OpenAPI document. Reads the handlers and writes functions/read_docs/openapi.json."""
