"""Deletion protection of the tables, which the first deployment of a stack cannot have.

If the first deployment fails, CloudFormation deletes what it created. It cannot delete a protected table.
"""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_UNFINISHED = {"REVIEW_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_FAILED", "DELETE_COMPLETE"}
"""Status of a stack whose first deployment has not succeeded, besides those that start with ROLLBACK_."""


def is_deployed(cloudformation: "CloudFormationClient", stack_name: str) -> bool:
    """Return whether a deployment would update the stack. Raises ClientError, for example without permission."""
    try:
        (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    except ClientError as error:
        # CloudFormation has no error code of its own for a stack that does not exist.
        if error.response["Error"]["Code"] == "ValidationError":
            return False
        raise
    status = stack["StackStatus"]
    return status not in _UNFINISHED and not status.startswith("ROLLBACK_")
