"""The template as CloudFormation sees it, after the SAM transform, worked out without a network."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]

type Template = dict[str, Any]
"""A CloudFormation template, intrinsic functions in their long form (`{"Ref": ...}`)."""

ROOT = Path(__file__).resolve().parents[2]

CODE_BUCKET = "local"


class _NoManagedPolicies:
    """Roles are written out in the template, so that the transform needs the name of no managed policy."""

    def load(self) -> dict[str, str]:
        return {}


def read_template(path: Path = ROOT / "template.yaml") -> Template:
    """The template as written."""
    template: Template = json.loads(json.dumps(cfn_yaml.load(str(path))))
    return template


def transform_template(template: Template) -> Template:
    """Expands the SAM resources. A folder of code becomes the key of an object in `CODE_BUCKET`."""
    source: Template = json.loads(json.dumps(template))
    for resource in source["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ("CodeUri", "ContentUri"):
            if name in properties:
                properties[name] = f"s3://{CODE_BUCKET}/{properties[name]}"
    with patch.dict("os.environ", AWS_DEFAULT_REGION="us-east-1"):
        transformed: Template = transform(source, {}, _NoManagedPolicies())
    return transformed
