"""The Swagger UI page as one response, without resources of third-party hosts."""

import base64
import hashlib
import json
import re
from pathlib import Path

from aws_lambda_powertools.event_handler.openapi import swagger_ui

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_REPLACED = {
    "<title>Swagger UI</title>": "<title>Modelhaul API</title>",
    # The API has no cookies, and browsers would require S3 to allow them for downloads.
    "withCredentials: true": "withCredentials: false",
}


def render_page(document: str, download_origins: str) -> tuple[str, str]:
    """Return (HTML, Content-Security-Policy).

    Only the page's own scripts may run. They may only connect to its own host and to `download_origins`, to which the
    API redirects downloads (`PageSettings`).
    """
    assets = Path(swagger_ui.__file__).parent
    page = swagger_ui.generate_swagger_html(
        # `</` could end the script element that contains the document.
        json.dumps(json.loads(document), separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/"),
        (assets / "swagger-ui-bundle.min.js").read_text(),
        (assets / "swagger-ui.min.css").read_text(),
        swagger_base_url="",
        oauth2_config=None,
        persist_authorization=True,
    )
    for text, replacement in _REPLACED.items():
        page = page.replace(text, replacement)
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in _SCRIPT.findall(page))
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src 'self' {download_origins}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return page, policy
