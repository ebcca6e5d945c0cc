"""Serve the standard repositories until SIGTERM or SIGINT: python -m tests.upstream --ready-file PATH."""

import argparse
import json
import signal
import threading
from pathlib import Path

from tests.upstream.hub import LoopbackHub
from tests.upstream.repositories import add_standard_repositories


def write_ready_file(path: Path, addresses: dict[str, str]) -> None:
    """Write the addresses so that a reader sees all of the file or no file."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(addresses))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--ready-file", type=Path, required=True, help="JSON file for the addresses")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0 picks a free one")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with LoopbackHub(port=options.port) as hub:
        add_standard_repositories(hub)
        write_ready_file(options.ready_file, {"hub": hub.endpoint, "hub_cdn": hub.cdn_endpoint})
        stopped.wait()


if __name__ == "__main__":
    main()
