"""CPU time of decompression by library, in seconds per GB of content: python -m bench.inflaters FILE...

Each file is decompressed in the same steps as in `modelhaul.archives.inflating`.
"""

import json
import sys
import time
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = {"zlib": "zlib", "zlib-ng": "zlib_ng.zlib_ng", "isal": "isal.isal_zlib"}
_READ_SIZE = 128 * 1024
_CHUNK_SIZE = 256 * 1024
_GB = 1_000_000_000


def inflate(library: Any, compressed: bytes) -> int:
    """Decompress the data and return the size of the content."""
    inflater = library.decompressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for start in range(0, len(compressed), _READ_SIZE):
        pending = compressed[start : start + _READ_SIZE]
        while pending and not inflater.eof:
            size += len(inflater.decompress(pending, _CHUNK_SIZE))
            pending = inflater.unconsumed_tail
    while not inflater.eof:
        size += len(inflater.decompress(b"", _CHUNK_SIZE))
    return size


def main() -> None:
    costs = {}
    for name, module in LIBRARIES.items():
        library = import_module(module)
        for path in sys.argv[1:]:
            compressed = Path(path).read_bytes()
            started = time.process_time()
            size = inflate(library, compressed)
            costs[f"{name} {path}"] = (time.process_time() - started) * _GB / size
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
