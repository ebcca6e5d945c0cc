"""The API's document: made from the handlers, kept in functions/read_docs/openapi.json."""
