"""ContentIndex on Amazon DynamoDB."""

import time
from collections.abc import Iterable
from datetime import datetime

from pynamodb.attributes import BinaryAttribute, NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import (
    BATCH_GET_LIMIT,
    BATCH_LIMIT,
    bind_item,
    delete_item,
    find_item,
    save_items,
    to_moment,
    translate_errors,
    write_parallel,
)
from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.objects import Blob
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex

_STAGED = "staged:"
_GROUP = "group:"


class BlobItem(Item):
    """Item of a blob.

    `digest` has the prefix `_STAGED` if the blob expires. Expiring and permanent blobs thus have different keys, and
    writes need no condition.
    """

    digest = UnicodeAttribute(hash_key=True)
    sha256 = UnicodeAttribute()
    key = UnicodeAttribute()
    size = NumberAttribute()
    etag = UnicodeAttribute()
    expires_at = TTLAttribute(null=True)


class GroupItem(Item):
    """Item of a group of small files, in the same table. `digest` is the fingerprint with the prefix `_GROUP`. `blobs`
    are packed as lists of digest, SHA-256, key, size and ETag.
    """

    digest = UnicodeAttribute(hash_key=True)
    blobs = BinaryAttribute(legacy_encoding=False)
    expires_at = TTLAttribute()


class DynamoDBContentIndex(ContentIndex):
    """Content index in the table of blobs."""

    def __init__(
        self,
        connection: Connection,
        *,
        blobs_table: str,
        clock: Clock = time.time,
    ) -> None:
        self._blobs = bind_item(BlobItem, blobs_table, connection)
        self._groups = bind_item(GroupItem, blobs_table, connection)
        self._clock = clock

    @translate_errors()
    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        wanted = dict.fromkeys(digests)
        keys = [prefix + digest for digest in wanted for prefix in ("", _STAGED)]
        now = self._clock()
        found = {
            item.digest: Blob(item.sha256, item.key, int(item.size), item.etag)
            for item in self._blobs.batch_get(keys, consistent_read=True)
            if not _has_expired(item.expires_at, now)
        }
        blobs = {digest: found.get(digest) or found.get(_STAGED + digest) for digest in wanted}
        return {digest: blob for digest, blob in blobs.items() if blob is not None}

    @translate_errors()
    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        prefix = "" if expires_at is None else _STAGED
        expiry = None if expires_at is None else to_moment(expires_at)

        def write(batch: tuple[tuple[str, Blob], ...]) -> None:
            save_items(self._blobs, [self._from_blob(prefix + digest, blob, expiry) for digest, blob in batch])

        write_parallel(write, dict(blobs).items(), BATCH_LIMIT)

    def _from_blob(self, digest: str, blob: Blob, expires_at: datetime | None) -> BlobItem:
        return self._blobs(
            digest=digest,
            sha256=blob.sha256,
            key=blob.key,
            size=blob.size,
            etag=blob.etag,
            expires_at=expires_at,
        )

    @translate_errors()
    def find_group(self, fingerprint: str) -> dict[str, Blob]:
        item = find_item(self._groups, _GROUP + fingerprint)
        if item is None or _has_expired(item.expires_at, self._clock()):
            return {}
        return {digest: Blob(*fields) for digest, *fields in unpack(item.blobs)}

    @translate_errors()
    def put_group(self, fingerprint: str, blobs: Iterable[tuple[str, Blob]], *, expires_at: float) -> None:
        packed = pack([(digest, blob.sha256, blob.key, blob.size, blob.etag) for digest, blob in blobs])
        self._groups(_GROUP + fingerprint, blobs=packed, expires_at=to_moment(expires_at)).save()

    @translate_errors()
    def forget_blob(self, digest: str, key: str) -> None:
        for prefix in ("", _STAGED):
            delete_item(self._blobs(prefix + digest), BlobItem.key == key)

    @translate_errors()
    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        keys: dict[str, set[str]] = {}
        for digest, key in references:
            keys.setdefault(digest, set()).add(key)

        def forget(digests: tuple[str, ...]) -> None:
            found = self._blobs.batch_get(digests, consistent_read=True, attributes_to_get=["digest", "key"])
            for item in found:
                if item.key in keys[item.digest]:
                    delete_item(self._blobs(item.digest), BlobItem.key == item.key)

        write_parallel(forget, keys, BATCH_GET_LIMIT)


def _has_expired(expires_at: datetime | None, now: float) -> bool:
    """Return whether the blob has expired. DynamoDB deletes expired items only within days.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html
    """
    return expires_at is not None and expires_at.timestamp() <= now
