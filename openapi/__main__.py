"""Write functions/read_docs/openapi.json: python -m openapi."""

from openapi.document import DOCUMENT, render_document

if __name__ == "__main__":
    DOCUMENT.write_text(render_document())
