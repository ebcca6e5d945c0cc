"""The template as CloudFormation deploys it, and with the values of parameters."""

from functools import cache

from deployment.conditions import Template, apply_parameters
from deployment.templates import (
    CODE_BUCKET,
    NESTED_STACK,
    ROOT,
    expand_includes,
    merge_nested_stacks,
    read_template,
    transform_main_template,
    transform_template,
)

__all__ = [
    "CODE_BUCKET",
    "NESTED_STACK",
    "ROOT",
    "Template",
    "apply_parameters",
    "expand_includes",
    "merge_nested_stacks",
    "read_template",
    "read_transformed",
    "transform_main_template",
    "transform_template",
]


@cache
def read_transformed() -> Template:
    """Return the transformed template. Do not change it: it is shared."""
    return transform_template(read_template())
