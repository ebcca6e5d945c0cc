"""Transfers of a file from the Hub to S3 without Modelhaul, measured.

python -m bench.plain_transfers WAY HUB COMMIT, where WAY is one of WAYS. The environment has the S3 endpoint and the
certificates; all other settings are the defaults of the libraries.
"""

import hashlib
import os
import sys
import tempfile
from typing import IO, TYPE_CHECKING, cast

import boto3
import huggingface_hub
import requests
from botocore.config import Config

from bench.servers import NAME, PATH
from bench.usage import measure_on_signal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _HashedBody:
    """The body of a response, with the SHA-256 of the bytes that were read."""

    def __init__(self, response: requests.Response) -> None:
        self._raw = response.raw
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._raw.read(size)
        self.sha256.update(data)
        return data


def _open_file(hub: str, commit: str) -> requests.Response:
    response = requests.get(f"{hub}/{NAME}/resolve/{commit}/{PATH}", stream=True, timeout=60)
    response.raise_for_status()
    return response


def move_over_disk(s3: "S3Client", hub: str, commit: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = huggingface_hub.snapshot_download(NAME, revision=commit, endpoint=hub, cache_dir=folder)
        s3.upload_file(f"{path}/{PATH}", "models", PATH)


def move_unverified(s3: "S3Client", hub: str, commit: str) -> None:
    with _open_file(hub, commit) as response:
        s3.upload_fileobj(cast("IO[bytes]", response.raw), "models", PATH)


def move_verified(s3: "S3Client", hub: str, commit: str) -> None:
    with _open_file(hub, commit) as response:
        body = _HashedBody(response)
        s3.upload_fileobj(cast("IO[bytes]", body), "models", PATH)
        assert body.sha256.hexdigest() == response.headers["ETag"].strip('"')


WAYS = {"disk": move_over_disk, "unverified": move_unverified, "verified": move_verified}


def main() -> None:
    way, hub, commit = sys.argv[1:]
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    measure_on_signal(lambda: WAYS[way](s3, hub, commit))


if __name__ == "__main__":
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    main()
