"""The data of a stack with some models: recorded from a released version, and loaded into a stack of this version.

At a release, `make up`, then `python -m tests.stack.released_data .local/stack.json tests/stack/released/DATE.json.gz`.
A record has the items of the tables, the objects of the buckets, and what the API of the released version returned.
"""

import base64
import gzip
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.stack import StackState
from tests.archives.building import Member, build, make_model_files
from tests.stack.conftest import Stack
from tests.upstream.repositories import GITHUB_SMALL, SMALL

ARCHIVE = "released/archive"
WEIGHTS = 300 * 1024
"""Bytes of the archive's weights: smaller files of archives are not found by their content."""

_MAX_SIZE = 512 * 1024
"""Bytes of an object in a record. Larger ones, which do not compress, are left out to keep the repository small."""

_TABLES = ("TasksTable", "ModelsTable", "FilesTable", "ContentTable", "BlobsTable", "KeysTable")
_BUCKETS = ("ModelsBucket", "IncomingBucket")


@dataclass
class Released:
    """`models` and `tasks` are the API's responses by ID. `key` is a read key. `outputs` are those of the old stack."""

    models: dict[str, Any]
    tasks: dict[str, Any]
    key: str
    outputs: dict[str, str]
    items: dict[str, list[dict[str, Any]]]
    objects: dict[str, dict[str, dict[str, Any]]]


def import_models(stack: Stack) -> list[str]:
    """Import a model from each source, and return the IDs of the tasks."""
    ended = [stack.import_model(SMALL), stack.import_repository(GITHUB_SMALL)]
    content = build_archive()
    url = f"{stack.state.api_url}/upload/local"
    files = {"file": ("models.zip", content, "application/zip")}
    response = stack.http.post(url, params={"model_name": ARCHIVE}, files=files, timeout=120)
    assert response.status_code == 201, response.text
    ended.append(stack.wait_for_end(response.links["status"]["url"].rpartition("/")[2]))
    assert [task["task_status"] for task in ended] == ["DONE"] * 3, ended
    return [task["id"] for task in ended]


def build_archive(comment: bytes = b"") -> bytes:
    """Return an archive with weights that compress well."""
    header = {"weight": {"dtype": "F32", "shape": [WEIGHTS // 4], "data_offsets": [0, WEIGHTS]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = struct.pack("<Q", len(text)) + text + bytes(WEIGHTS)
    files = {**make_model_files(), "model.safetensors": weights}
    return build([Member(f"model/{path}".encode(), content) for path, content in files.items()], comment=comment)


def record(stack: Stack) -> Released:
    tasks = import_models(stack)
    models = stack.http.get(f"{stack.state.api_url}/models", timeout=30).json()["models"]
    key: str = stack.create_key("released")["key"]
    outputs = stack.state.outputs
    return Released(
        models={model["model_id"]: read_model(stack, model["model_id"]) for model in models},
        tasks={task: stack.read_task(task) for task in tasks},
        key=key,
        outputs={name: outputs[name] for name in (*_TABLES, *_BUCKETS)},
        items={name: stack.dynamodb.scan(TableName=outputs[name])["Items"] for name in _TABLES},
        objects={name: dict(_list_objects(stack, outputs[name])) for name in _BUCKETS},
    )


def read_model(stack: Stack, model_id: str) -> dict[str, Any]:
    """Return a model as the API does, without the URL of its manifest, which is signed anew in each response."""
    response = stack.http.get(f"{stack.state.api_url}/models/{model_id}", timeout=30)
    assert response.status_code == 200, response.text
    return {key: value for key, value in response.json().items() if key != "manifest_url"}


def _list_objects(stack: Stack, bucket: str) -> list[tuple[str, dict[str, Any]]]:
    found = [one for one in stack.s3.list_objects_v2(Bucket=bucket).get("Contents", []) if one["Size"] <= _MAX_SIZE]
    objects = [(entry["Key"], stack.s3.get_object(Bucket=bucket, Key=entry["Key"])) for entry in found]
    return [
        (key, {"Body": one["Body"].read(), "ContentType": one["ContentType"], "Metadata": one["Metadata"]})
        for key, one in objects
    ]


def load(stack: Stack, released: Released) -> None:
    """Load a record into a stack without models. Items do not contain the names of tables and buckets."""
    for table, items in released.items.items():
        for item in items:
            stack.dynamodb.put_item(TableName=stack.state.outputs[table], Item=item)
    for bucket, objects in released.objects.items():
        for key, one in objects.items():
            stack.s3.put_object(Bucket=stack.state.outputs[bucket], Key=key, **one)


def read_file(path: Path) -> Released:
    return Released(**json.loads(gzip.decompress(path.read_bytes()), object_hook=_decode))


def write_file(released: Released, path: Path) -> None:
    text = json.dumps(vars(released), default=_encode, sort_keys=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _encode(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _decode(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


if __name__ == "__main__":
    state, target = map(Path, sys.argv[1:])
    write_file(record(Stack(StackState(**json.loads(state.read_text())))), target)
