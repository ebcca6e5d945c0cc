"""Write functions/read_docs/openapi.json and openapi/gateway_responses.json: python -m openapi."""

from openapi.document import DOCUMENT, render_document
from openapi.gateway import GATEWAY_RESPONSES, render_responses

if __name__ == "__main__":
    DOCUMENT.write_text(render_document())
    GATEWAY_RESPONSES.write_text(render_responses())
