"""SecretStore on AWS Secrets Manager."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, is_temporary, read_error_code
from modelhaul.domain.errors import CredentialsRefusedError, StorageUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_CACHE_TTL = 300  # seconds

# https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html#API_GetSecretValue_Errors
_PERMANENT_CODES = frozenset(
    {
        "AccessDeniedException",
        "DecryptionFailure",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "ValidationException",
    }
)


def create_secrets_client(region: str) -> "SecretsManagerClient":
    client: SecretsManagerClient = create_client(
        "secretsmanager",
        region,
        Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=5),
    )
    return client


class SecretsManagerSecretStore:
    """Caches each secret for five minutes, so that a warm function reads it rarely, but sees a new value soon."""

    def __init__(self, client: "SecretsManagerClient", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._cache: dict[str, tuple[float, str]] = {}

    def read_secret(self, secret_id: str) -> str:
        now = self._clock()
        cached = self._cache.get(secret_id)
        if cached is not None and now < cached[0] + _CACHE_TTL:
            return cached[1]
        text = self._fetch(secret_id)
        self._cache[secret_id] = (now, text)
        return text

    def _fetch(self, secret_id: str) -> str:
        # `from None`: the causes contain ARNs, and stack traces must not show the name of a secret.
        try:
            response = self._client.get_secret_value(SecretId=secret_id)
        except CALL_ERRORS as error:
            code = read_error_code(error)
            if code not in _PERMANENT_CODES:
                raise StorageUnavailableError(
                    f"Secrets Manager GetSecretValue failed ({code}).", is_outage=is_temporary(error)
                ) from None
            raise CredentialsRefusedError(f"The configured secret cannot be read ({code}).") from None
        try:
            return response["SecretString"]
        except KeyError:
            raise CredentialsRefusedError("The configured secret is binary. It must be a string.") from None
