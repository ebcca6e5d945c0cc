"""MiniStack as the local stack starts it: objects on disk, and an address for each API."""

import hashlib
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local import stack
from local.errors import LocalStackError
from local.stack import CLIENT_CONFIG, ENVIRONMENTS, Addresses, LocalStack, open_session

MIB = 1024 * 1024
PART_COUNT, PART_SIZE = 6, 16 * MIB
SIZE = PART_COUNT * PART_SIZE
BUCKET = "models"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ENVIRONMENTS / "ministack").is_dir(), reason="make setup has not installed MiniStack"),
]


@dataclass(frozen=True)
class Emulator:
    addresses: Addresses
    pid: int
    folder: Path

    def create_client(self, service: Any) -> Any:
        return open_session().client(service, endpoint_url=self.addresses.aws, config=CLIENT_CONFIG)

    def read_memory(self) -> int:
        """Return the bytes of memory that are not copies of files."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.is_file():
            pytest.skip("the test reads Linux's /proc")
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        assert found is not None
        return 1024 * int(found[1])


@pytest.fixture(scope="module", params=[False, True], ids=["without IAM", "with IAM"])
def emulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "LOCAL", tmp_path_factory.mktemp("local"))
        local = LocalStack()
        local.folder.mkdir()
        process, addresses = local._start_ministack(0, request.param)
        try:
            yield Emulator(addresses, process.pid, local.folder)
        finally:
            local.stop()


@pytest.fixture(scope="module")
def s3(emulator: Emulator) -> Iterator[Any]:
    with closing(emulator.create_client("s3")) as client:
        client.create_bucket(Bucket=BUCKET)
        yield client


def upload_parts(s3: Any, key: str, parts: list[bytes]) -> str:
    """Upload an object in parts, and return its SHA-256."""
    upload_id = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    finished = []
    for number, part in enumerate(parts, 1):
        sent = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload_id, PartNumber=number, Body=part)
        finished.append({"PartNumber": number, "ETag": sent["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload_id, MultipartUpload={"Parts": finished})
    return hashlib.sha256(b"".join(parts)).hexdigest()


def build_parts(seed: str, count: int = PART_COUNT) -> list[bytes]:
    generator = random.Random(seed)
    return [generator.randbytes(PART_SIZE) for _ in range(count)]


def read_digest(s3: Any, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in s3.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def test_objects_do_not_stay_in_memory(emulator: Emulator, s3: Any) -> None:
    before = emulator.read_memory()

    body = b"".join(build_parts("put"))
    s3.put_object(Bucket=BUCKET, Key="put.bin", Body=body)
    digest = upload_parts(s3, "parts.bin", build_parts("parts"))
    s3.copy_object(Bucket=BUCKET, Key="copy.bin", CopySource={"Bucket": BUCKET, "Key": "parts.bin"})

    assert read_digest(s3, "put.bin") == hashlib.sha256(body).hexdigest()
    assert read_digest(s3, "parts.bin") == read_digest(s3, "copy.bin") == digest
    assert emulator.read_memory() - before < SIZE / 3


def test_ranges_and_copies_of_ranges(s3: Any) -> None:
    parts = build_parts("ranges", 2)
    upload_parts(s3, "source.bin", parts)
    content = b"".join(parts)
    for first, last in ((0, 0), (5, 99), (100, 3 * MIB), (PART_SIZE - 1, PART_SIZE), (0, len(content) - 1)):
        read = s3.get_object(Bucket=BUCKET, Key="source.bin", Range=f"bytes={first}-{last}")
        assert (read["ContentLength"], read["ContentRange"]) == (
            last - first + 1,
            f"bytes {first}-{last}/{len(content)}",
        )
        assert read["Body"].read() == content[first : last + 1]

    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="target.bin")["UploadId"]
    target = {"Bucket": BUCKET, "Key": "target.bin", "UploadId": upload}
    source = {"Bucket": BUCKET, "Key": "source.bin"}
    # Parts of both kinds: above and below the size that is kept in memory.
    ranges = [(7, 6 * MIB), (9 * MIB, 9 * MIB + 50), (PART_SIZE, 2 * PART_SIZE - 1)]
    finished = []
    for number, (first, last) in enumerate(ranges, 1):
        copied = s3.upload_part_copy(
            **target, PartNumber=number, CopySource=source, CopySourceRange=f"bytes={first}-{last}"
        )
        finished.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    s3.delete_object(Bucket=BUCKET, Key="source.bin")
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": finished})
    expected = b"".join(content[first : last + 1] for first, last in ranges)
    assert s3.get_object(Bucket=BUCKET, Key="target.bin")["Body"].read() == expected


def test_object_may_be_overwritten_while_it_is_read(s3: Any) -> None:
    (first,), (second,) = build_parts("first", 1), build_parts("second", 1)
    s3.put_object(Bucket=BUCKET, Key="overwritten.bin", Body=first)
    body = s3.get_object(Bucket=BUCKET, Key="overwritten.bin")["Body"]
    start = body.read(1000)
    s3.put_object(Bucket=BUCKET, Key="overwritten.bin", Body=second)
    assert start + body.read() == first
    assert s3.get_object(Bucket=BUCKET, Key="overwritten.bin")["Body"].read() == second
    # A copy of an object to itself changes only its metadata.
    itself = {"Bucket": BUCKET, "Key": "overwritten.bin"}
    s3.copy_object(**itself, CopySource=itself, MetadataDirective="REPLACE", Metadata={"a": "b"})
    assert s3.get_object(**itself)["Body"].read() == second


def test_client_that_stops_reading_costs_no_memory(emulator: Emulator, s3: Any) -> None:
    upload_parts(s3, "unread.bin", build_parts("unread"))
    before = emulator.read_memory()
    for _ in range(3):
        body = s3.get_object(Bucket=BUCKET, Key="unread.bin")["Body"]
        body.read(MIB)
        body.close()
    # Handled after the requests before it.
    s3.list_buckets()
    assert emulator.read_memory() - before < SIZE / 3


def test_wrong_checksum_is_rejected(s3: Any) -> None:
    with pytest.raises(s3.exceptions.ClientError, match="BadDigest"):
        s3.put_object(Bucket=BUCKET, Key="wrong.bin", Body=bytes(2 * MIB), ChecksumSHA256="A" * 43 + "=")


def test_files_of_finished_requests_are_deleted(emulator: Emulator, s3: Any) -> None:
    (part,) = build_parts("finished", 1)
    upload_parts(s3, "finished.bin", [part])
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="aborted.bin")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="aborted.bin", UploadId=upload, PartNumber=1, Body=part)
    assert len(list((emulator.folder / "tmpdir").glob("body-*"))) == 1
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted.bin", UploadId=upload)
    assert list((emulator.folder / "tmpdir").glob("body-*")) == []


def test_body_that_does_not_fit_on_the_disk_is_rejected(emulator: Emulator, s3: Any) -> None:
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "huge.bin"})
    size = shutil.disk_usage(emulator.folder).free
    response = requests.put(url, data=iter([b"a"]), headers={"Content-Length": str(size)}, timeout=30)
    assert response.status_code == 507
    assert re.search(r"Cannot store [\d,]+ bytes: the local stack leaves 1,024 MiB of the disk free", response.text)
    assert "Cannot store" in (emulator.folder / "ministack.log").read_text()


def test_each_api_has_its_stage_at_the_root_of_its_address(emulator: Emulator) -> None:
    assert requests.get(f"{emulator.addresses.api}/models", timeout=30).status_code == 503
    gateway = emulator.create_client("apigateway")
    for stage, url in (("v1", emulator.addresses.api), ("hf", emulator.addresses.hub)):
        api = gateway.create_rest_api(name=stage)["id"]
        (root,) = gateway.get_resources(restApiId=api)["items"]
        path = gateway.create_resource(restApiId=api, parentId=root["id"], pathPart="models")["id"]
        method = {"restApiId": api, "resourceId": path, "httpMethod": "GET"}
        gateway.put_method(**method, authorizationType="NONE")
        gateway.put_integration(**method, type="MOCK", requestTemplates={"application/json": '{"statusCode": 200}'})
        gateway.put_method_response(**method, statusCode="200")
        gateway.put_integration_response(
            **method, statusCode="200", responseTemplates={"application/json": f'{{"stage": "{stage}"}}'}
        )
        gateway.create_deployment(restApiId=api, stageName=stage)
        assert requests.get(f"{url}/models", timeout=30).json() == {"stage": stage}


def test_port_of_the_hub_in_use_is_rejected() -> None:
    with pytest.raises(LocalStackError, match="Cannot use port"):
        stack.find_ports(65535, 2)
