"""The IAM policy of `make verify-deployment`, in its documentation, and the actions that calls of AWS need."""

import json
import re
from functools import cache

from local.stack import ROOT

DOCUMENT = ROOT / "docs" / "verification.md"

# Operations whose action has another name.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_ACTIONS = {
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "lambda:GetLayerVersionByArn": "lambda:GetLayerVersion",
}


def find_action(service: str, operation: str) -> str:
    """Return the IAM action that an operation of AWS needs."""
    if service == "apigateway":
        return "apigateway:GET" if operation.startswith("Get") else f"apigateway:{operation}"
    return _ACTIONS.get(f"{service}:{operation}", f"{service}:{operation}")


@cache
def read_policy() -> dict[str, object]:
    (text,) = re.findall(r'```json\n(\{\n  "Version".*?)```', DOCUMENT.read_text(), re.DOTALL)
    policy: dict[str, object] = json.loads(text)
    return policy


def read_policy_actions() -> set[str]:
    """Return the actions that the documented policy allows."""
    statements = read_policy()["Statement"]
    assert isinstance(statements, list)
    actions: set[str] = set()
    for statement in statements:
        assert statement["Effect"] == "Allow"
        found = statement["Action"]
        actions |= {found} if isinstance(found, str) else set(found)
    return actions
