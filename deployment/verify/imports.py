"""Import models into the stack, follow their tasks, and delete what was created."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3
from botocore.exceptions import ClientError

from deployment.verify.api import Api, Json, describe_response, expect_status, parse_json
from deployment.verify.archives import build_archive, build_model
from deployment.verify.aws import Clients, DeployedStack
from deployment.verify.contents import Content, digest_content
from deployment.verify.results import CheckFailedError, CheckSkippedError, expect, expect_true
from deployment.verify.waiting import wait_for

IMPORT_TIMEOUT = 600.0  # seconds
OUTCOME_TIMEOUT = 180.0
DELETION_TIMEOUT = 120.0  # seconds
REQUEST_TIMEOUT = 25.0  # seconds; of the API's functions
_CHUNK_SIZE = 1024 * 1024


@dataclass(frozen=True)
class ImportedModel:
    """A model that was imported. `record` is the response of the catalog. `files` is the content that was uploaded, or
    None if only the source has it.
    """

    task: Json
    record: Json
    files: dict[str, bytes] | None

    @property
    def model_id(self) -> str:
        return str(self.record["model_id"])

    @property
    def paths(self) -> list[str]:
        return [file["path"] for file in self.record["manifest"]["files"]]

    @property
    def keys(self) -> set[str]:
        """The keys of its objects."""
        files = {f"{self.record['manifest']['prefix']}{path}" for path in self.paths}
        signatures = {urlsplit(self.record["signature"]["location"]).path[1:]} if "signature" in self.record else set()
        return files | signatures | {f"manifests/{self.model_id}.json"}


@dataclass
class Created:
    """What the verification created and has not deleted yet: IDs, and keys of the incoming bucket. `archives` are the
    keys of archives whose import has not begun yet. `others` are other resources, with the function that deletes them.
    `is_sending`: a POST has not returned yet, or was interrupted.
    """

    tasks: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    others: dict[str, Callable[[], None]] = field(default_factory=dict)
    is_sending: bool = False


@dataclass
class Imports:
    """Models that several checks use are imported once. `marker` is a part of the name of all that is created."""

    api: Api
    clients: Clients
    stack: DeployedStack
    marker: str
    created: Created = field(default_factory=Created)
    contents: dict[tuple[str, str], Content] = field(default_factory=dict)
    _models: dict[str, ImportedModel | Exception] = field(default_factory=dict)

    def find(self, name: str, import_model: Callable[[], ImportedModel]) -> ImportedModel:
        """Return the model `name`, which the first caller imports. Raises CheckSkippedError if that failed before."""
        if name not in self._models:
            try:
                self._models[name] = import_model()
            except Exception as error:
                self._models[name] = error
                raise
        found = self._models[name]
        if isinstance(found, CheckSkippedError):
            raise CheckSkippedError(str(found))
        if isinstance(found, Exception):
            raise CheckSkippedError(f"{name} failed")
        return found

    def build_model(self, seed: str, *, has_odd_names: bool = False) -> dict[str, bytes]:
        """Return the files of a model that no other verification builds, and that the stack accepts."""
        is_strict = self.stack.parameters.get("RequiredFiles") == "strict"
        return build_model(f"{seed} {self.marker}", has_odd_names=has_odd_names, is_strict=is_strict)

    def submit(self, route: str, body: Json) -> str:
        """Submit a model of a source and return the task ID."""
        response = self._post(f"upload/{route}", json=body)
        expect_status(response, 201)
        return self._record_task(response.headers.get("Location"), response)

    def post_archive(self, content: bytes, name: str, **headers: str) -> requests.Response:
        """Send an archive in a POST. The name of the model is `name` and the marker."""
        form, content_type = urllib3.encode_multipart_formdata(
            # A fixed boundary: a request with the same Idempotency-Key must have the same body.
            {"file": ("models.zip", content, "application/zip")},
            boundary=f"verify-{self.marker}",
        )
        response = self._post(
            "upload/local",
            params={"model_name": f"{name}-{self.marker}"},
            data=form,
            headers={"Content-Type": content_type, **headers},
        )
        if response.status_code == requests.codes.created:
            self._record_task(response.links.get("status", {}).get("url"), response)
        return response

    def open_upload(self, size: int, name: str) -> Json:
        """Open an upload by presigned URLs, and return the body of the response."""
        body = {"file_name": "models.zip", "size": size, "model_name": f"{name}-{self.marker}"}
        response = self._post("upload/local", json=body)
        expect_status(response, 201)
        self._record_task(response.headers.get("Location"), response)
        return parse_json(response)

    def import_files(self, name: str, files: dict[str, bytes]) -> ImportedModel:
        """Import an archive with one model by a POST."""
        response = self.post_archive(build_archive("model", files), name)
        expect_status(response, 201)
        return self.finish(self.find_task_id(response), files)

    def find_task_id(self, response: requests.Response) -> str:
        """Return the task ID in the Link of a response to a POST of an archive."""
        return str(response.links["status"]["url"].rpartition("/")[2])

    def finish(self, task_id: str, files: dict[str, bytes] | None = None) -> ImportedModel:
        """Wait until the import ends, and read its model. Raises CheckFailedError unless it is DONE with one model."""
        task = self.wait_for_end(task_id)
        if task["task_status"] != "DONE":
            raise CheckFailedError(f"task {task_id} is {task['task_status']}: {task.get('error_msg')}")
        ids = [model["model_id"] for model in task["models"] if "model_id" in model]
        expect(len(ids), 1, f"number of models of task {task_id}")
        record = self.api.read(f"models/{quote(ids[0], safe='')}")
        if "manifest" not in record:
            raise CheckFailedError(f"the record of model {ids[0]} has no manifest")
        return ImportedModel(task, record, files)

    def drop_object(self, key: str, content: bytes) -> Json:
        """Store an object in the incoming bucket, and return its first outcome."""
        self.created.objects += [key, f"outcomes/{key}.json"]
        self.created.archives.append(key)
        try:
            self.clients.s3.put_object(Bucket=self.stack.outputs["IncomingBucket"], Key=key, Body=content)
        except ClientError:
            # Denied: there will be no outcome to wait for.
            self.created.archives.remove(key)
            raise
        return self.wait_for_outcome(key)

    def wait_for_outcome(self, key: str) -> Json:
        """Wait for the first outcome of an object in the incoming bucket. From then on, the cleanup knows its task."""
        s3, bucket = self.clients.s3, self.stack.outputs["IncomingBucket"]

        def probe() -> Json | None:
            # Not a read of the object: without s3:ListBucket, a missing object is AccessDenied.
            found = s3.list_objects_v2(Bucket=bucket, Prefix=f"outcomes/{key}.json")
            if not found.get("Contents"):
                return None
            outcome: Json = json.loads(s3.get_object(Bucket=bucket, Key=f"outcomes/{key}.json")["Body"].read())
            return outcome

        interval = self.clients.target.poll_interval
        outcome = wait_for(probe, f"an outcome of {key}", timeout=OUTCOME_TIMEOUT, interval=interval)
        self.created.archives.remove(key)
        if "id" in outcome:
            self.created.tasks.append(outcome["id"])
        return outcome

    def wait_for_end(self, task_id: str) -> Json:
        def probe() -> Json | None:
            task = self.api.read(f"upload/tasks/{task_id}")
            return task if task["task_status"] != "PENDING" else None

        return wait_for(
            probe, f"the end of task {task_id}", timeout=IMPORT_TIMEOUT, interval=self.clients.target.poll_interval
        )

    def read_file(self, model: ImportedModel, path: str) -> Content:
        """Download a file through the redirect of the API, once, and return its digests."""
        key = (model.model_id, path)
        if key not in self.contents:
            size = next(file["size"] for file in model.record["manifest"]["files"] if file["path"] == path)
            self.contents[key] = self.download(self.find_file_url(model, path), size)
        return self.contents[key]

    def find_file_url(self, model: ImportedModel, path: str) -> str:
        route = f"models/{quote(model.model_id, safe='')}/files/{quote(path)}"
        response = self.api.send("GET", route)
        expect_status(response, 302)
        return response.headers["Location"]

    def download(self, url: str, size: int, **headers: str) -> Content:
        """Return the digests of what a presigned URL returns."""
        with self.api.session.get(url, headers=headers, stream=True, timeout=60) as response:
            expect_status(response, 200, 206)
            return digest_content(response.iter_content(_CHUNK_SIZE), size)

    def create_key(self, name: str) -> Json:
        """Create a read key of the Hub read API."""
        response = self._post("keys", json={"name": name})
        expect_status(response, 201)
        key = parse_json(response)
        self.created.keys.append(key["key_id"])
        return key

    def delete_key(self, key_id: str) -> None:
        expect_status(self.api.send("DELETE", f"keys/{key_id}"), 204, 404)
        self.created.keys.remove(key_id)

    def remove_model(self, model_id: str) -> None:
        """Delete a model, and wait until the catalog does not have it. No-op if it does not exist."""
        route = f"models/{quote(model_id, safe='')}"
        expect_status(self.api.send("DELETE", route), 202, 204, 404)

        def probe() -> bool | None:
            return self.api.send("GET", route).status_code == requests.codes.not_found or None

        interval = self.clients.target.poll_interval
        wait_for(probe, f"the deletion of model {model_id}", timeout=DELETION_TIMEOUT, interval=interval)

    def list_keys(self, model: ImportedModel) -> list[str]:
        """Return the keys of the objects of a model, including its manifest and its signature."""
        bucket = self.stack.outputs["ModelsBucket"]
        prefixes = (
            model.record["manifest"]["prefix"],
            f"manifests/{model.model_id}.json",
            f"signatures/{model.model_id}/",
        )
        pages = [self.clients.s3.list_objects_v2(Bucket=bucket, Prefix=prefix) for prefix in prefixes]
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def delete_all(self) -> list[str]:
        """Delete all that was created. Returns what could not be deleted, with the reason."""
        left: list[str] = []

        def attempt(subject: str, delete: Callable[..., Any], *arguments: str) -> None:
            try:
                delete(*arguments)
            except Exception as error:  # noqa: BLE001 - delete the rest
                left.append(f"{subject}: {error}")

        # After an interruption, an archive may be on its way, and the response to a POST may be lost.
        for key in list(self.created.archives):
            attempt(f"the import of {key}", self.wait_for_outcome, key)
        if self.created.is_sending:
            # The function goes on without the client.
            time.sleep(REQUEST_TIMEOUT)
        attempt("imports without a response", self._find_tasks)
        if "HubUrl" in self.stack.outputs:
            attempt("read keys without a response", self._find_keys)
        for task_id in list(self.created.tasks):
            attempt(f"models of task {task_id}", self._delete_import, task_id)
        for key_id in list(self.created.keys):
            attempt(f"read key {key_id}", self.delete_key, key_id)
        for key in self.created.objects:
            attempt(f"object {key}", self._delete_object, key)
        for name, delete in self.created.others.items():
            attempt(name, delete)
        return left

    def _find_tasks(self) -> None:
        """Find tasks of this verification among the newest tasks."""
        for task in self.api.read("upload/tasks", params={"limit": 100})["tasks"]:
            if self.marker in json.dumps(task) and task["id"] not in self.created.tasks:
                self.created.tasks.append(task["id"])

    def _find_keys(self) -> None:
        for key in self.api.read("keys")["keys"]:
            if self.marker in key["name"] and key["key_id"] not in self.created.keys:
                self.created.keys.append(key["key_id"])

    def _delete_import(self, task_id: str) -> None:
        """Cancel a task that has not ended, and delete its models. No-op for an outcome that has no task."""
        response = self.api.send("GET", f"upload/tasks/{task_id}")
        if response.status_code == requests.codes.not_found:
            return
        expect_status(response, 200)
        task = parse_json(response)
        if task["task_status"] == "PENDING":
            # 409 if it ends meanwhile.
            expect_status(self.api.send("DELETE", f"upload/tasks/{task_id}"), 204, 409)
            task = self.wait_for_end(task_id)
        for model in task.get("models", []):
            if model.get("status") == "READY":
                self.remove_model(model["model_id"])

    def _delete_object(self, key: str) -> None:
        self.clients.s3.delete_object(Bucket=self.stack.outputs["IncomingBucket"], Key=key)

    def _post(self, path: str, **content: Any) -> requests.Response:
        self.created.is_sending = True
        response = self.api.send("POST", path, **content)
        self.created.is_sending = False
        return response

    def _record_task(self, location: str | None, response: requests.Response) -> str:
        expect_true(location, f"{describe_response(response)}; expected the path of a task")
        task_id = str(location).rpartition("/")[2]
        with contextlib.suppress(ValueError):
            self.created.tasks.remove(task_id)
        self.created.tasks.append(task_id)
        return task_id
