"""Remedies that name commands and options. They replace remedies of the API that name routes, fields or headers.

The keys are the error types of tasks and the last parts of the `type` of problems.
"""

from collections.abc import Mapping
from typing import Any

_RUN_LATER = "Run the command again later."
CHECK_KEY = "Check that the API key belongs to this stack and that the API URL is correct."
_CHECK_VERSION = "Check that the API URL is correct and that modelhaul and the stack have the same version."

_REMEDIES: Mapping[str, str] = {
    "model-exists": "Use the existing model, or delete it with `modelhaul rm MODEL_ID` and import again.",
    "storage-quota-exceeded": "`modelhaul usage` shows the largest models, and those that were not read lately. Delete "
    "models with `modelhaul rm MODEL_ID`, or ask an operator to raise StorageQuotaGB. Then run the command again.",
}
_PROBLEM_REMEDIES: Mapping[str, str] = {
    **_REMEDIES,
    "file-not-found": "`modelhaul show MODEL_ID` lists the files of the model.",
    "model-pinned": "Unpin the model with `modelhaul unpin MODEL_ID`, and delete it again.",
    "task-not-found": "Check the task ID. `modelhaul tasks` lists the tasks.",
    "follow-not-found": "Check the follow ID. `modelhaul follow list` lists the follows.",
    "key-not-found": "Check the key ID. `modelhaul keys ls` lists the keys.",
    "signature-not-found": "The model was published without signing. `modelhaul sign MODEL_ID` signs it if the stack "
    "signs models (parameter Signing).",
    "task-ended": "`modelhaul status TASK_ID` shows the result. `modelhaul rm MODEL_ID` deletes an imported model.",
    "invalid-parameters": "Correct the values that the message names, and run the command again.",
    "invalid-api-key": CHECK_KEY,
    "access-denied": "Ask an operator to allow execute-api:Invoke on this route in a policy of the caller. "
    "`aws sts get-caller-identity` shows the caller.",
    "expired-credentials": "Sign in again, for example with `aws sso login`, or set other credentials.",
    "invalid-signature": "Check the clock of this computer, and that the API URL is the one of the stack outputs. With "
    "a custom domain name, AWS_REGION must be the Region of the stack.",
    "unauthorized": CHECK_KEY,
    "invalid-json": _CHECK_VERSION,
    "invalid-form": _CHECK_VERSION,
    "invalid-idempotency-key": _CHECK_VERSION,
    "idempotency-key-reused": _CHECK_VERSION,
    "unsupported-media-type": _CHECK_VERSION,
    "body-too-large": _CHECK_VERSION,
    "no-such-route": _CHECK_VERSION,
    "request-refused": _CHECK_VERSION,
    "request-in-progress": _RUN_LATER,
    "rate-limited": f"{_RUN_LATER} A configured token raises most rate limits.",
    "source-unavailable": f"{_RUN_LATER} If the error persists, check the source's status page.",
    "unexpected-answer": f"{_RUN_LATER} If the error persists, ask an operator to check the source's URL in the stack "
    "parameters.",
    "storage-unavailable": _RUN_LATER,
    "invalid-policy": "Correct the document as the message describes. docs/policy.md describes its members.",
    "policy-unavailable": "Ask an operator to correct the policy document or the permission to read it. "
    "`modelhaul policy check FILE` checks a document. Nothing is imported until then.",
    "throttled": _RUN_LATER,
    "gateway-failure": _RUN_LATER,
    "gateway-timeout": _RUN_LATER,
    "internal-error": "Run the command again. If the error persists, ask an operator to search the logs.",
}


def find_problem_remedy(problem_type: str, remedy: str) -> str:
    """Return the remedy for an error response. `remedy` is the API's remedy, or ""."""
    return _PROBLEM_REMEDIES.get(problem_type, remedy)


def find_task_remedy(error: Mapping[str, Any]) -> str:
    """Return the remedy for the `error` of a task or a model, or ""."""
    return _REMEDIES.get(str(error.get("type")), str(error.get("remedy") or ""))
