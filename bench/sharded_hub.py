"""A loopback Hub with MiniLM and a generated model: python -m bench.sharded_hub BYTES FILES.

The weights of the generated model are in FILES files of the same size in Git LFS, BYTES bytes in all.
"""

import sys

from bench.servers import NAME, announce
from tests.upstream.content import GeneratedContent, SafetensorsContent
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import FileSource, HubFile, HubRepository
from tests.upstream.repositories import build_minilm


def main() -> None:
    size, count = map(int, sys.argv[1:])
    files: dict[str, FileSource] = {"config.json": b"{}", "tokenizer.json": b'{"version": "1.0"}'}
    for number in range(1, count + 1):
        content = SafetensorsContent(GeneratedContent(size // count, seed=number))
        files[f"model-{number:05}-of-{count:05}.safetensors"] = HubFile(content, lfs=True)
    with LoopbackHub() as hub:
        hub.add_repository(build_minilm())
        hub.add_repository(HubRepository(NAME, {"main": files}))
        announce({"endpoint": hub.endpoint})


if __name__ == "__main__":
    main()
