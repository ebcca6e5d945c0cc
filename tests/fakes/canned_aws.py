"""AWS responses that a test defines, for clients of boto3. Nothing is sent."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.validate import validate_parameters

type Respond = Callable[[dict[str, Any]], dict[str, Any]]


class AwsError(Exception):
    """An error of AWS: its code is the response to a call."""


class CannedAws:
    """`responses` has a response for each `service.Operation`, or a function of the parameters of the call, which may
    raise AwsError. Each response is validated with botocore's model of the service.
    """

    def __init__(self, region: str = "us-east-1") -> None:
        self.responses: dict[str, dict[str, Any] | Respond] = {}
        self.session = boto3.Session(aws_access_key_id="key", aws_secret_access_key="secret", region_name=region)
        self.session.events.register("provide-client-params", self._keep_parameters)
        self.session.events.register("before-call", self._respond)
        self._parameters: dict[str, Any] = {}

    def _keep_parameters(self, params: dict[str, Any], **others: Any) -> None:
        self._parameters = params

    def _respond(self, model: Any, **others: Any) -> Any:
        """Return the response, which botocore then does not request."""
        response = self.responses[f"{model.service_model.service_name}.{model.name}"]
        if callable(response):
            try:
                response = response(self._parameters)
            except AwsError as error:
                return SimpleNamespace(status_code=403), {"Error": {"Code": str(error), "Message": "denied"}}
        if model.output_shape is not None:
            validate_parameters(response, model.output_shape)
        return SimpleNamespace(status_code=200), dict(response)
