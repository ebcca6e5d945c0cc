"""Answers by Idempotency-Key, kept in a DynamoDB table by Powertools.

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
"""As Lambda gives it to API Gateway."""

RETENTION_SECONDS = 24 * 3600  # seconds


class DynamoDBResponseStore:
    """A table with the key `id`, whose items expire by `expires_at`."""

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
        """What `resolve` answers, or what it answered to `key` within `scope` in the last 24 hours. An answer that asks
        to come again later (429, 5xx, any with Retry-After) is not kept, so that coming again is of use.

        `digest` stands for the rest of the request. Raises IdempotencyKeyReusedError if the first one had another,
        RequestInProgressError while that is being answered, StorageUnavailableError, and what `resolve` raises.
        """
        given: list[Response] = []

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
        def answer(*, request: dict[str, Any]) -> Response:  # noqa: ARG001 - what Powertools compares
            given.append(resolve())
            if _is_transient(given[0]):
                raise _TransientResponseError
            return given[0]

        try:
            answered: Response = answer(request={"scope": scope, "key": key, "digest": digest})
        except _TransientResponseError:
            return given[0]
        except IdempotencyAlreadyInProgressError:
            raise RequestInProgressError("The first request with this Idempotency-Key is being answered.") from None
        except IdempotencyValidationError:
            raise IdempotencyKeyReusedError(
                "This Idempotency-Key came with another request before: give each request a key of its own."
            ) from None
        except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError) as error:
            if given:
                # What was done is done, and said; the key is in progress until this function's time would have ended.
                logger.warning("the answer is not kept under its key", exc_info=error)
                return given[0]
            raise StorageUnavailableError("The DynamoDB request for the Idempotency-Key failed.") from error
        return answered


class _TransientResponseError(Exception):
    """The answer holds for now only."""


def _is_transient(answer: Response) -> bool:
    status = answer["statusCode"]
    return (
        status == HTTPStatus.TOO_MANY_REQUESTS
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or any(name.lower() == "retry-after" for name in answer.get("multiValueHeaders", {}))
    )


class _ResponseSerializer(BaseIdempotencySerializer):
    """Compressed: a thousand presigned addresses take 1.5 MB as they are, and an item may have 400 KB."""

    def to_dict(self, data: Response) -> dict[str, str]:
        return {"answer": base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()}

    def from_dict(self, data: dict[str, str]) -> Response:
        answer: Response = json.loads(zlib.decompress(base64.b64decode(data["answer"])))
        return answer
