"""Run an HTTP server of a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


@contextmanager
def run_server[ServerT: ThreadingHTTPServer](server: ServerT) -> Iterator[ServerT]:
    """Serve in a thread until the block ends, then close the server."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
