"""Content that must not be published."""

from deployment.verify import archives
from deployment.verify.api import expect_problem, expect_status, parse_json
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckSkippedError, expect

SECTION = "rejected-content"


@check("reject-archive", SECTION)
def check_archive(verification: Verification) -> str:
    """An archive with an entry outside of its directory is rejected at once, with the entry."""
    imports = verification.imports
    response = imports.post_archive(archives.build_hostile_archive("model", imports.marker), "verify-traversal")
    expect_problem(response, 400, "archive-refused")
    expect(parse_json(response).get("entry"), f"model/{archives.OUTSIDE}", "entry of the problem")
    return "400 archive-refused"


@check("reject-pickle", SECTION)
def check_pickle(verification: Verification) -> str:
    """A pickle that would run a command fails its import, and nothing of it is visible."""
    policy = verification.stack.parameters.get("PicklePolicy", "block")
    if policy != "block":
        raise CheckSkippedError(f"PicklePolicy is {policy}")
    imports = verification.imports
    archive = archives.build_archive("model", archives.build_hostile_model(imports.marker))
    response = imports.post_archive(archive, "verify-hostile")
    expect_status(response, 201)
    task = imports.wait_for_end(imports.find_task_id(response))
    expect(task["task_status"], "FAILED", f"task_status of task {task['id']}")
    expect((task.get("error") or {}).get("type"), "unsafe-model", f"error.type of task {task['id']}")
    listed = verification.api.read("models", params={"name": f"verify-hostile-{imports.marker}"})["models"]
    expect(listed, [], "listed models")
    return "FAILED with unsafe-model"
