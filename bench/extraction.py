"""A plain import of an archive, measured: download it, extract it, upload every file.

python -m bench.extraction SOURCE_BUCKET KEY BUCKET
"""

import json
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import boto3
from botocore.config import Config

from bench.usage import measure

_CONCURRENCY = 8


def extract(source_bucket: str, key: str, bucket: str) -> None:
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, max_pool_connections=10 * _CONCURRENCY))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.zip"
        s3.download_file(source_bucket, key, str(archive))
        files = Path(folder) / "files"
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(files)
        paths = [path for path in files.rglob("*") if path.is_file()]
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            for _ in pool.map(lambda p: s3.upload_file(str(p), bucket, f"plain/{p.relative_to(files)}"), paths):
                pass


if __name__ == "__main__":
    print(json.dumps(asdict(measure(lambda: extract(*sys.argv[1:])))))
