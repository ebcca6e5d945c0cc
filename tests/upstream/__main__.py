"""Serve the standard repositories until SIGTERM or SIGINT: python -m tests.upstream --ready-file PATH."""

import argparse
import json
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.upstream.git_repository import RepositoryMaker
from tests.upstream.git_tools import LfsServer, find_missing_tools
from tests.upstream.github import LoopbackGitHub
from tests.upstream.hub import LoopbackHub
from tests.upstream.repositories import add_github_repositories, add_standard_repositories


def write_ready_file(path: Path, addresses: dict[str, str]) -> None:
    """Write the addresses so that a reader sees all of the file or no file."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(addresses))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--ready-file", type=Path, required=True, help="JSON file for the addresses")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0 picks a free one")
    parser.add_argument("--folder", type=Path, help="where GitHub's repositories are made; without it there are none")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as servers:
        hub = servers.enter_context(LoopbackHub(port=options.port))
        add_standard_repositories(hub)
        addresses = {"hub": hub.endpoint, "hub_cdn": hub.cdn_endpoint}
        missing = find_missing_tools()
        if options.folder and missing:
            addresses["github_lacks"] = ", ".join(missing)
        elif options.folder:
            lfs = servers.enter_context(LfsServer(options.folder / "lfs"))
            github = servers.enter_context(LoopbackGitHub(lfs))
            add_github_repositories(github, RepositoryMaker(options.folder, lfs))
            addresses |= {"github_api": github.api_url, "github": github.site_url, "github_raw": github.raw_url}
        write_ready_file(options.ready_file, addresses)
        stopped.wait()


if __name__ == "__main__":
    main()
