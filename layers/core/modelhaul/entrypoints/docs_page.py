"""The Swagger UI page as one response, without resources of third-party hosts."""

import base64
import hashlib
import re
from pathlib import Path

from aws_lambda_powertools.event_handler.openapi import swagger_ui

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def render_page(document: str) -> tuple[str, str]:
    """Return (HTML, Content-Security-Policy). Only the page's own scripts may run, and only connect to its own host."""
    assets = Path(swagger_ui.__file__).parent
    page = swagger_ui.generate_swagger_html(
        # `</` could end the script element that contains the document.
        document.replace("</", "<\\/"),
        (assets / "swagger-ui-bundle.min.js").read_text(),
        (assets / "swagger-ui.min.css").read_text(),
        swagger_base_url="",
        oauth2_config=None,
        persist_authorization=True,
    )
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in _SCRIPT.findall(page))
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return page, policy
