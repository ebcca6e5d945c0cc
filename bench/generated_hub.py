"""A loopback Hub with one generated file of BYTES bytes: python -m bench.generated_hub BYTES."""

import sys

from bench.servers import NAME, PATH, announce
from tests.upstream.content import GeneratedContent
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository


def main() -> None:
    file = HubFile(GeneratedContent(int(sys.argv[1])), lfs=True)
    repository = HubRepository(NAME, {"main": {PATH: file}})
    with LoopbackHub() as hub:
        hub.add_repository(repository)
        announce({"endpoint": hub.endpoint, "commit": repository.branches["main"], "sha256": file.sha256})


if __name__ == "__main__":
    main()
