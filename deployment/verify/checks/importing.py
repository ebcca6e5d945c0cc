"""An import from each source."""

from typing import Any

from deployment.verify import archives
from deployment.verify.api import expect_problem, expect_status
from deployment.verify.imports import ImportedModel, Imports
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, CheckSkippedError, expect, expect_true
from deployment.verify.target import SourceModel

SECTION = "imports"
NO_REPOSITORY = "set GITHUB=OWNER/NAME@REVISION to a public repository that contains a small model with Git LFS"


def import_from_hub(verification: Verification) -> ImportedModel:
    imports, model = verification.imports, verification.target.hub_model
    body = {"model_tag": model.name, "revision": model.revision, **_select(model, imports)}
    return imports.find("import-hub", lambda: imports.finish(imports.submit("huggingface", body)))


def import_from_github(verification: Verification) -> ImportedModel:
    imports, repository = verification.imports, verification.target.repository
    if repository is None:
        raise CheckSkippedError(NO_REPOSITORY)
    owner, _, name = repository.name.partition("/")
    body = {"owner": owner, "repo_name": name, "revision": repository.revision, **_select(repository, imports)}
    return imports.find("import-github", lambda: imports.finish(imports.submit("github", body)))


def import_by_post(verification: Verification) -> ImportedModel:
    imports = verification.imports
    return imports.find("import-zip-post", lambda: _import_by_post(imports))


def import_by_parts(verification: Verification) -> ImportedModel:
    imports = verification.imports
    return imports.find("import-zip-parts", lambda: _import_by_parts(imports))


def import_by_copy(verification: Verification) -> ImportedModel:
    imports = verification.imports
    return imports.find("import-zip-copy", lambda: _import_by_copy(imports))


def import_pickle(verification: Verification) -> ImportedModel:
    imports = verification.imports
    files = archives.build_pickled_model(imports.marker)
    return imports.find("import-pickle", lambda: imports.import_files("verify-pickle", files))


IMPORTS = (import_from_hub, import_from_github, import_by_post, import_by_parts, import_by_copy)


@check("import-zip-post", SECTION)
def check_import_by_post(verification: Verification) -> str:
    """A ZIP in a POST is imported. The same POST with the same Idempotency-Key starts no second import."""
    return describe(import_by_post(verification))


@check("import-zip-parts", SECTION)
def check_import_by_parts(verification: Verification) -> str:
    """A ZIP above 64 MB is imported from presigned parts."""
    return describe(import_by_parts(verification))


@check("import-zip-copy", SECTION)
def check_import_by_copy(verification: Verification) -> str:
    """A ZIP that is copied into the incoming bucket is imported. Its key reaches the import unchanged."""
    return describe(import_by_copy(verification))


@check("import-hub", SECTION)
def check_import_from_hub(verification: Verification) -> str:
    """A model is imported from the Hugging Face Hub."""
    return describe(import_from_hub(verification))


@check("import-github", SECTION)
def check_import_from_github(verification: Verification) -> str:
    """A repository with Git LFS is imported from GitHub."""
    return describe(import_from_github(verification))


@check("import-pickle", SECTION)
def check_import_pickle(verification: Verification) -> str:
    """A pickle of plain data is imported, and the second scanner inspected it."""
    if verification.stack.parameters.get("PicklePolicy") == "off":
        raise CheckSkippedError("PicklePolicy is off")
    gate = import_pickle(verification).record["gate"]
    expect(gate["second_opinion"], "clean", "gate.second_opinion")
    expect(gate["verdict"], "clean", "gate.verdict")
    return "clean, also for the second scanner"


@check("object-ignored", SECTION)
def check_ignored_object(verification: Verification) -> str:
    """Other objects in the incoming bucket get an outcome that says why they are not imported. Outcomes get none."""
    imports = verification.imports
    name = f"verify-{imports.marker}"
    for key in (f"incoming/{name}.txt", f"{name}.zip"):
        outcome = imports.drop_object(key, b"not an archive")
        expect((outcome.get("error") or {}).get("type"), "object-ignored", f"error.type of outcomes/{key}.json")
    bucket, prefix = verification.stack.outputs["IncomingBucket"], "outcomes/outcomes/"
    found = verification.clients.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    expect_true(not found, f"the incoming bucket contains outcomes of outcomes, below {prefix}")
    return "object-ignored"


@check("upload-length", SECTION, not_on_local="the local stack does not enforce the length of presigned uploads")
def check_upload_length(verification: Verification) -> str:
    """A presigned upload with one additional byte is rejected."""
    upload = verification.imports.open_upload(1000, "verify-length")
    response = verification.api.session.put(upload["upload"]["url"], data=bytes(1001), timeout=60)
    expect_status(response, 403)
    return "403"


@check("cancel", SECTION)
def check_cancel(verification: Verification) -> str:
    """An import that has not received its archive can be cancelled, once."""
    task_id = verification.imports.open_upload(1000, "verify-cancel")["task_id"]
    expect_status(verification.api.send("DELETE", f"upload/tasks/{task_id}"), 204)
    task = verification.api.read(f"upload/tasks/{task_id}")
    expect(task.get("stage"), "CANCELLED", f"stage of task {task_id}")
    expect_problem(verification.api.send("DELETE", f"upload/tasks/{task_id}"), 409, "task-ended")
    return "204, then 409 task-ended"


@check("reuse", SECTION)
def check_reuse(verification: Verification) -> str:
    """Content is copied from a model that has it, as long as there is one."""
    imports = verification.imports
    files = imports.build_model("reuse")
    weights = len(files["model.safetensors"])
    reused = {}
    previous: ImportedModel | None = None
    # Each model is deleted after the next one has copied its weights.
    for name in ("verify-first", "verify-second", "verify-third"):
        model = imports.import_files(name, files)
        reused[name] = model.task["progress"]["bytes_reused"]
        if previous is not None:
            expect_true(
                reused[name] >= weights,
                f"{name} reused {reused[name]} bytes, expected at least {weights} (the weights)",
            )
            imports.remove_model(previous.model_id)
        previous = model
    expect_true(
        reused["verify-first"] < weights, f"the first import reused {reused['verify-first']} bytes, expected less"
    )
    return f"{reused['verify-third']:,} bytes reused"


def describe(model: ImportedModel) -> str:
    return f"{model.record['files']} files, {model.record['size']:,} bytes: {model.record['name']}"


def _select(model: SourceModel, imports: Imports) -> dict[str, Any]:
    """Return the selection of the model. The pattern that matches nothing makes it another model than the same one
    that users of the stack have imported, so that neither import rejects the other.
    """
    selection: dict[str, Any] = {"ignore_patterns": [f"verify-{imports.marker}"]}
    if model.patterns:
        selection["allow_patterns"] = list(model.patterns)
    return selection


def _import_by_post(imports: Imports) -> ImportedModel:
    files = imports.build_model("post", has_odd_names=True)
    archive = archives.build_archive("model", files)
    key = {"Idempotency-Key": f"verify-{imports.marker}"}
    response = imports.post_archive(archive, "verify-post", **key)
    expect_status(response, 201)
    task_id = imports.find_task_id(response)
    repeated = imports.post_archive(archive, "verify-post", **key)
    expect_status(repeated, 201)
    expect(imports.find_task_id(repeated), task_id, "task of a repeated POST with the same Idempotency-Key")
    return imports.finish(task_id, files)


def _import_by_parts(imports: Imports) -> ImportedModel:
    files = imports.build_model("parts")
    archive = archives.build_archive("model", files, padding=archives.PADDING_SIZE)
    opened = imports.open_upload(len(archive), "verify-parts")
    upload, session = opened["upload"], imports.api.session
    if "parts" not in upload:
        raise CheckFailedError(f"an upload of {len(archive):,} bytes has no parts")
    listed = ""
    for part in upload["parts"]:
        stored = session.put(part["url"], data=archive[part["start"] : part["end"]], timeout=300)
        expect_status(stored, 200)
        etag = stored.headers["ETag"]
        listed += f"<Part><PartNumber>{part['number']}</PartNumber><ETag>{etag}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
    expect_status(session.post(upload["complete"]["url"], data=body, timeout=120), 200)
    return imports.finish(opened["task_id"], files)


def _import_by_copy(imports: Imports) -> ImportedModel:
    files = imports.build_model("copy")
    key = f"incoming/verify {imports.marker}/a b+é.ZIP"
    outcome = imports.drop_object(key, archives.build_archive(f"verify-copy-{imports.marker}", files))
    expect(outcome["model_tag"], key, "model_tag")
    return imports.finish(outcome["id"], files)
