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
    model = imports.import_files("verify-delete", imports.build_model("delete"))
    stored = imports.list_keys(model)
    expect(sorted(stored), sorted(model.keys), "objects of the model")
    imports.remove_model(model.model_id)
    wait_for(
        lambda: None if imports.list_keys(model) else True,
        f"the deletion of the objects of model {model.model_id}",
        timeout=OBJECTS_TIMEOUT,
        interval=verification.target.poll_interval,
    )
    return f"{len(stored)} objects deleted"
