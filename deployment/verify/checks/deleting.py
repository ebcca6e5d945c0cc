"""Deletion of models."""

from deployment.verify.registry import Verification, check
from deployment.verify.results import expect
from deployment.verify.waiting import wait_for

SECTION = "deletion"
OBJECTS_TIMEOUT = 120.0  # seconds


@check("delete-model", SECTION)
def check_deletion(verification: Verification) -> str:
    """A deleted model is neither in the catalog nor in the bucket."""
    imports = verification.imports
    files = imports.build_model("delete")
    model = imports.import_files("verify-delete", files)
    count = len(imports.list_keys(model))
    expect(count, len(files) + 1, "number of objects of the model")
    imports.remove_model(model.model_id)
    wait_for(
        lambda: None if imports.list_keys(model) else True,
        f"the deletion of the objects of model {model.model_id}",
        timeout=OBJECTS_TIMEOUT,
        interval=verification.target.poll_interval,
    )
    return f"{count} objects deleted"
