"""`python -m local.console`: a page that shows the widget of the dashboard as the CloudWatch console does.

The local stack has no console. The page in the browser invokes the functions of the widget through this server.
"""

import argparse
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.stack import CLIENT_CONFIG, open_session

FOLDER = Path(__file__).resolve().parent
FILES = {
    "/": ("console.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console.js": ("console.js", "text/javascript; charset=utf-8"),
}
# As in CloudWatch, no script of a widget runs, and a widget loads nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_BODY = 1_000_000  # bytes
_HOST = re.compile(r"127\.0\.0\.1(:[0-9]+)?")

type Invoke = Callable[[str, dict[str, Any]], object]
"""Invokes a function, by its ARN, with an event. Raises InvocationError."""


class InvocationError(Exception):
    """The function failed, or does not belong to the widget."""


class ConsoleServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1. `render_function` is the ARN of the function that the page shows first."""

    def __init__(self, port: int, render_function: str, invoke: Invoke) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.render_function = render_function
        self.invoke = invoke

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ConsoleServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._is_own():
            return
        if path == "/functions":
            self._send(json.dumps({"render": self.server.render_function}).encode(), "application/json")
        elif path in FILES:
            name, content_type = FILES[path]
            self._send((FOLDER / name).read_bytes(), content_type)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_own():
            return
        # Pages of other origins cannot send this type without a preflight request, which is not answered.
        if self.path != "/invoke" or self.headers.get("Content-Type") != "application/json":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            size = int(self.headers.get("Content-Length", ""))
            if not 0 <= size <= MAX_BODY:
                raise ValueError(size)
            body = json.loads(self.rfile.read(size))
            result = self.server.invoke(str(body["endpoint"]), dict(body["event"]))
        except (ValueError, TypeError, KeyError):
            self.send_error(HTTPStatus.BAD_REQUEST)
        except InvocationError as error:
            self._send(str(error).encode(), "text/plain; charset=utf-8", HTTPStatus.BAD_GATEWAY)
        else:
            self._send(json.dumps(result).encode(), "application/json")

    def _is_own(self) -> bool:
        """Return whether the request names this server. Another name may belong to a page that resolves to it."""
        if _HOST.fullmatch(self.headers.get("Host", "")):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def _send(self, content: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: the page sends a request every few seconds."""


def create_invoke(endpoint: str, allowed: set[str]) -> Invoke:
    """Return a function that invokes the `allowed` functions (names) through the Lambda API at `endpoint`."""
    functions = open_session().client("lambda", endpoint_url=endpoint, config=CLIENT_CONFIG)

    def invoke(arn: str, event: dict[str, Any]) -> object:
        name = arn.rpartition(":")[2]
        if name not in allowed:
            raise InvocationError(f"The function {name!r} does not belong to the widget.")
        response = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        payload = response["Payload"].read().decode()
        if response.get("FunctionError"):
            raise InvocationError(f"The function {name} failed: {payload}")
        return json.loads(payload)

    return invoke


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.console", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--aws-endpoint", required=True, help="URL of MiniStack")
    parser.add_argument("--render-function", required=True, help="name of the function that renders the widget")
    parser.add_argument("--cancel-function", required=True, help="name of the function that cancels imports")
    options = parser.parse_args()
    invoke = create_invoke(options.aws_endpoint, {options.render_function, options.cancel_function})
    ConsoleServer(options.port, options.render_function, invoke).serve_forever()


if __name__ == "__main__":
    main()
