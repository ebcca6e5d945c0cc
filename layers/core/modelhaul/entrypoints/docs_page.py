"""The Swagger UI page: a small page, and two large assets that browsers keep.

Anyone can request them, so they are compressed whatever the client accepts. The import API cannot return binary
content, so the page receives base64 and decompresses it. No resource is from a third-party host: the page must also
work in networks that cannot reach one.
"""

import base64
import gzip
import hashlib
from functools import cache
from pathlib import Path

from aws_lambda_powertools.event_handler import openapi

_FILES = {"script": "swagger-ui-bundle.min.js", "style": "swagger-ui.min.css"}
_START = """
const load = async (name) => {
  const response = await fetch(`docs/${name}`);
  if (!response.ok) throw new Error(`GET docs/${name} returned ${response.status}. Reload the page in a minute.`);
  const bytes = Uint8Array.from(atob(await response.text()), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).text();
};
const add = (kind, text) => {
  const element = document.createElement(kind);
  element.textContent = text;
  document.head.append(element);
};
const start = async () => {
  const [style, script] = await Promise.all([load("STYLE"), load("SCRIPT")]);
  add("style", style);
  add("script", script);
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    docExpansion: "list",
    deepLinking: true,
    filter: true,
    layout: "BaseLayout",
    showExtensions: true,
    showCommonExtensions: true,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl],
    persistAuthorization: true,
  });
};
start().catch((error) => {
  document.getElementById("swagger-ui").textContent = `The reference could not be loaded: ${error.message}`;
});
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Modelhaul API</title></head>
<body><div id="swagger-ui">Loading…</div><script>START</script></body>
</html>
"""


@cache
def _read_file(kind: str) -> bytes:
    return (Path(openapi.__file__).parent / "swagger_ui" / _FILES[kind]).read_bytes()


@cache
def _name_asset(kind: str) -> str:
    """Return a name that changes with the content, so that browsers can keep the asset forever."""
    return f"{kind}-{hashlib.sha256(_read_file(kind)).hexdigest()[:16]}"


@cache
def find_asset(name: str) -> str | None:
    """Return the gzip-compressed content of an asset as base64, or None if the page has no asset of this name."""
    kind = next((kind for kind in _FILES if _name_asset(kind) == name), None)
    return None if kind is None else base64.b64encode(gzip.compress(_read_file(kind), mtime=0)).decode()


def render_page(download_origins: str) -> tuple[str, str]:
    """Return (HTML, Content-Security-Policy).

    Only the page's own scripts may run. They may only connect to its own host and to `download_origins`, to which the
    API redirects downloads (`PageSettings`).
    """
    start = _START.replace("STYLE", _name_asset("style")).replace("SCRIPT", _name_asset("script"))
    # The hash of the asset also allows the element that the page adds with its content.
    scripts = " ".join(f"'sha256-{_hash(script)}'" for script in (start.encode(), _read_file("script")))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src 'self' {download_origins}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return _PAGE.replace("START", start), policy


def _hash(script: bytes) -> str:
    return base64.b64encode(hashlib.sha256(script).digest()).decode()
