"""Responses by Idempotency-Key, which Powertools stores in a DynamoDB table.

https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/
"""

import base64
import json
import logging
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.serialization.base import BaseIdempotencySerializer
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from modelhaul.domain.errors import IdempotencyKeyReusedError, RequestInProgressError, StorageUnavailableError

logger = logging.getLogger(__name__)

type Response = dict[str, Any]
"""A response in the format of API Gateway's Lambda proxy integration."""

RETENTION_SECONDS = 24 * 3600  # seconds


class DynamoDBResponseStore:
    """Responses in a table with the partition key `id` and the TTL attribute `expires_at`."""

    def __init__(self, table_name: str, *, region: str) -> None:
        self._layer = DynamoDBPersistenceLayer(
            table_name=table_name,
            expiry_attr="expires_at",
            boto_config=Config(
                region_name=region,
                connect_timeout=2,
                read_timeout=5,
                retries={"mode": "standard", "total_max_attempts": 3},
            ),
        )

    def respond_once(
        self, resolve: Callable[[], Response], *, scope: list[str], key: str, digest: str, context: LambdaContext
    ) -> Response:
        """Return the stored response to `key` within `scope`.

        If there is no stored response, call `resolve`, and store its response for 24 hours.

        A response that asks for a retry (429, 5xx, or any with Retry-After) is not stored, so that the retry calls
        `resolve` again. `digest` identifies the request. Raises IdempotencyKeyReusedError if the first request had a
        different digest, RequestInProgressError while the first request is in progress, StorageUnavailableError, and
        the errors of `resolve`.
        """
        resolved: list[Response] = []

        @idempotent_function(  # type: ignore[untyped-decorator]
            data_keyword_argument="request",
            persistence_store=self._layer,
            config=IdempotencyConfig(
                event_key_jmespath="[scope, key]",
                payload_validation_jmespath="digest",
                expires_after_seconds=RETENTION_SECONDS,
                hash_function="sha256",
                lambda_context=context,
            ),
            output_serializer=_ResponseSerializer(),
            key_prefix="modelhaul",
        )
        def respond(*, request: dict[str, Any]) -> Response:  # noqa: ARG001 - Powertools compares it
            resolved.append(resolve())
            if _is_transient(resolved[0]):
                raise _TransientResponseError
            return resolved[0]

        try:
            response: Response = respond(request={"scope": scope, "key": key, "digest": digest})
        except _TransientResponseError:
            return resolved[0]
        except IdempotencyAlreadyInProgressError:
            raise RequestInProgressError(f"The first request with Idempotency-Key {key!r} is in progress.") from None
        except IdempotencyValidationError:
            raise IdempotencyKeyReusedError(f"Idempotency-Key {key!r} was used with a different request.") from None
        except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError) as error:
            if resolved:
                # The request was executed, so its response is returned. The key stays in progress until the timeout of
                # this function.
                logger.warning("response not stored", exc_info=error)
                return resolved[0]
            raise StorageUnavailableError("The DynamoDB request for the Idempotency-Key failed.") from error
        return response


class _TransientResponseError(Exception):
    """The response must not be stored, because a retry may have a different one."""


def _is_transient(response: Response) -> bool:
    status = response["statusCode"]
    return (
        status == HTTPStatus.TOO_MANY_REQUESTS
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or any(name.lower() == "retry-after" for name in response.get("multiValueHeaders", {}))
    )


class _ResponseSerializer(BaseIdempotencySerializer):
    """Compresses responses. A thousand presigned URLs have 1.5 MB, and an item is limited to 400 KB."""

    def to_dict(self, data: Response) -> dict[str, str]:
        return {"answer": base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()}

    def from_dict(self, data: dict[str, str]) -> Response:
        response: Response = json.loads(zlib.decompress(base64.b64decode(data["answer"])))
        return response
