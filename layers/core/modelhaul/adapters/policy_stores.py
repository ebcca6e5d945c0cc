"""PolicyStore on Amazon S3 and on Systems Manager Parameter Store."""

from contextlib import closing
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, read_error_code
from modelhaul.adapters.s3_client import create_s3_client, strip_quotes
from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.policy.document import MAX_DOCUMENT
from modelhaul.ports.policy_store import PolicyStore, StoredPolicy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

_S3 = "s3://"
_SSM = "ssm:"


def open_policy_store(location: str, region: str) -> PolicyStore:
    """Open the store of an address of the template's parameter PolicyLocation: `s3://BUCKET/KEY` or `ssm:/NAME`."""
    if location.startswith(_S3):
        bucket, _, key = location.removeprefix(_S3).partition("/")
        return S3PolicyStore(create_s3_client(region), bucket, key)
    return SsmPolicyStore(create_ssm_client(region), location.removeprefix(_SSM))


def create_ssm_client(region: str) -> "SSMClient":
    client: SSMClient = create_client(
        "ssm", region, Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=5)
    )
    return client


class S3PolicyStore:
    """The document is an object."""

    def __init__(self, client: "S3Client", bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    @property
    def location(self) -> str:
        return f"{_S3}{self._bucket}/{self._key}"

    def read_policy(self) -> StoredPolicy:
        # `from None`: the causes contain ARNs.
        try:
            response = self._client.get_object(Bucket=self._bucket, Key=self._key)
            with closing(response["Body"]) as body:
                if response["ContentLength"] > MAX_DOCUMENT:
                    raise PolicyUnavailableError(
                        f"The policy at {self.location} has {response['ContentLength']:,} bytes. The limit is "
                        f"{MAX_DOCUMENT:,} bytes (256 KiB)."
                    )
                content = body.read()
        except CALL_ERRORS as error:
            raise _create_error(self.location, "S3 GetObject", error) from None
        version = response.get("VersionId", "null")
        # Objects of a bucket without versions have no version ID, or the ID "null".
        version = strip_quotes(response["ETag"]) if version == "null" else version
        return StoredPolicy(content, version, response["LastModified"])


class SsmPolicyStore:
    """The document is a parameter of type String."""

    def __init__(self, client: "SSMClient", name: str) -> None:
        self._client = client
        self._name = name

    @property
    def location(self) -> str:
        return f"{_SSM}{self._name}"

    def read_policy(self) -> StoredPolicy:
        try:
            parameter = self._client.get_parameter(Name=self._name)["Parameter"]
        except CALL_ERRORS as error:
            raise _create_error(self.location, "SSM GetParameter", error) from None
        if parameter["Type"] != "String":
            raise PolicyUnavailableError(
                f"The policy at {self.location} is a parameter of type {parameter['Type']}. It must be a String."
            )
        return StoredPolicy(parameter["Value"].encode(), str(parameter["Version"]), parameter["LastModifiedDate"])


def _create_error(location: str, operation: str, error: Exception) -> PolicyUnavailableError:
    code = read_error_code(error)
    return PolicyUnavailableError(f"The policy at {location} cannot be read: {operation} failed ({code}).")
