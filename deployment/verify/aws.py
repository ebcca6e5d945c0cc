"""Clients of AWS, and the deployed stack as CloudFormation describes it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deployment.conditions import apply_parameters
from deployment.verify.results import VerificationError
from deployment.verify.target import Target

if TYPE_CHECKING:
    from mypy_boto3_apigateway import APIGatewayClient
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

# Virtual-hosted addresses of S3 do not resolve on the local stack.
_CONFIG = Config(retries={"mode": "standard", "max_attempts": 5})
_LOCAL_CONFIG = _CONFIG.merge(Config(s3={"addressing_style": "path"}))


@dataclass(frozen=True)
class Clients:
    """The clients of the target, each opened when it is used first."""

    target: Target

    @cached_property
    def _options(self) -> dict[str, Any]:
        config = _LOCAL_CONFIG if self.target.is_local else _CONFIG
        return {"endpoint_url": self.target.endpoint, "config": config}

    def _open(self, service: Any) -> Any:
        """Open a client of a service for which boto3-stubs are not installed."""
        return self.target.session.client(service, **self._options)

    @cached_property
    def apigateway(self) -> "APIGatewayClient":
        return self.target.session.client("apigateway", **self._options)

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        return self.target.session.client("cloudformation", **self._options)

    @cached_property
    def cloudwatch(self) -> Any:
        return self._open("cloudwatch")

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        return self.target.session.client("dynamodb", **self._options)

    @cached_property
    def events(self) -> "EventBridgeClient":
        return self.target.session.client("events", **self._options)

    @cached_property
    def functions(self) -> "LambdaClient":
        return self.target.session.client("lambda", **self._options)

    @cached_property
    def logs(self) -> Any:
        return self._open("logs")

    @cached_property
    def s3(self) -> "S3Client":
        return self.target.session.client("s3", **self._options)

    @cached_property
    def sns(self) -> Any:
        return self._open("sns")

    @cached_property
    def sqs(self) -> "SQSClient":
        return self.target.session.client("sqs", **self._options)

    @cached_property
    def xray(self) -> Any:
        return self._open("xray")

    @cached_property
    def plain_s3(self) -> "S3Client":
        """A client of S3 without TLS."""
        return self.target.session.client("s3", use_ssl=False, **self._options)

    @cached_property
    def plain_sqs(self) -> "SQSClient":
        """A client of SQS without TLS."""
        return self.target.session.client("sqs", use_ssl=False, **self._options)


@dataclass(frozen=True, slots=True)
class Resource:
    logical_id: str
    physical_id: str
    type: str
    status: str


@dataclass(frozen=True)
class DeployedStack:
    """A stack and its nested stack MonitoringStack."""

    clients: Clients

    @cached_property
    def _description(self) -> Any:
        name = self.clients.target.stack_name
        try:
            return self.clients.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except (ClientError, BotoCoreError) as error:
            region, reason = self.clients.target.session.region_name, str(error).rstrip(".")
            raise VerificationError(
                f"Cannot read the stack {name} in {region}: {reason}. Set STACK_NAME=, REGION= or PROFILE=."
            ) from None

    @property
    def name(self) -> str:
        return self.clients.target.stack_name

    @property
    def status(self) -> str:
        return str(self._description["StackStatus"])

    @cached_property
    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self._description.get("Outputs", [])}

    @cached_property
    def parameters(self) -> dict[str, str]:
        return {entry["ParameterKey"]: entry["ParameterValue"] for entry in self._description.get("Parameters", [])}

    @cached_property
    def resources(self) -> list[Resource]:
        return self._list_resources(self.name)

    @cached_property
    def monitoring(self) -> list[Resource]:
        """The resources of MonitoringStack."""
        return self._list_resources(self.find("MonitoringStack"))

    def find(self, logical_id: str) -> str:
        """Return the physical ID of a resource. Raises KeyError if the stack does not have it."""
        return {resource.logical_id: resource.physical_id for resource in self.resources}[logical_id]

    def select(self, resource_type: str) -> list[Resource]:
        return [resource for resource in self.resources if resource.type == resource_type]

    @cached_property
    def template(self) -> dict[str, Any]:
        """The resources of the template that CloudFormation has deployed, after its transforms and conditions."""
        response = self.clients.cloudformation.get_template(StackName=self.name, TemplateStage="Processed")
        body: Any = response["TemplateBody"]
        values = {"AWS::Region": self.clients.target.session.region_name, **self.parameters}
        resources: dict[str, Any] = apply_parameters(body, **values)["Resources"]
        return resources

    def _list_resources(self, name: str) -> list[Resource]:
        pages = self.clients.cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        return [
            Resource(
                entry["LogicalResourceId"],
                entry.get("PhysicalResourceId", ""),
                entry["ResourceType"],
                entry["ResourceStatus"],
            )
            for page in pages
            for entry in page["StackResourceSummaries"]
        ]
