"""The checks, by subject. An import of a module registers its checks, and the order of imports is the order of runs."""

# ruff: noqa: I001 - the order of the checks
from deployment.verify.checks import resources
from deployment.verify.checks import api
from deployment.verify.checks import importing
from deployment.verify.checks import reading
from deployment.verify.checks import hub
from deployment.verify.checks import rejections
from deployment.verify.checks import deleting
from deployment.verify.checks import monitoring
from deployment.verify.registry import CHECKS

__all__ = ["CHECKS", "api", "deleting", "hub", "importing", "monitoring", "reading", "rejections", "resources"]
