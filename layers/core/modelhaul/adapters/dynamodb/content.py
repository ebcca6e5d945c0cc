"""ContentIndex on Amazon DynamoDB."""

import math
import secrets
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
    delete_items,
    find_item,
    map_parallel,
    save_items,
    to_moment,
    translate_errors,
    write_parallel,
)
from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.objects import Blob
from modelhaul.domain.segments import KeptUpload, UploadKey
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex

# Of the objects with the content of a digest, those whose items are read: several, to choose the one that is kept
# longest, and few, because a digest may have thousands. Published objects come first in the order of the keys.
_MAX_FOUND = 8
_STAGED = "staged:"
_GROUP = "group:"
_UPLOAD = "upload:"


class ContentItem(Item):
    """Item of an object that has the content of a digest.

    A popular file has one in each model that contains it. `version` is different each time that the item is written.
    """

    digest = UnicodeAttribute(hash_key=True)
    key = UnicodeAttribute(range_key=True)
    sha256 = UnicodeAttribute()
    size = NumberAttribute()
    etag = UnicodeAttribute()
    version = UnicodeAttribute()
    expires_at = TTLAttribute(null=True)


class BlobItem(Item):
    """Item of an earlier version of Modelhaul, which recorded a single object for each digest.

    It is found if the digest has no ContentItem, so that content is not transferred again after an update. `digest` has
    the prefix `_STAGED` if the blob expires.
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


class KeptUploadItem(Item):
    """Item of an upload that other imports can continue, in the same table. `digest` has the prefix `_UPLOAD`."""

    digest = UnicodeAttribute(hash_key=True)
    plan_id = UnicodeAttribute()
    group = NumberAttribute()
    position = NumberAttribute()
    expires_at = TTLAttribute()


class DynamoDBContentIndex(ContentIndex):
    """Content index in the table of content. Groups of small files are in the table of blobs."""

    def __init__(
        self,
        connection: Connection,
        *,
        content_table: str,
        blobs_table: str,
        clock: Clock = time.time,
    ) -> None:
        self._content = bind_item(ContentItem, content_table, connection)
        self._blobs = bind_item(BlobItem, blobs_table, connection)
        self._groups = bind_item(GroupItem, blobs_table, connection)
        self._uploads = bind_item(KeptUploadItem, blobs_table, connection)
        self._clock = clock

    @translate_errors()
    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        wanted = list(dict.fromkeys(digests))
        blobs = dict(zip(wanted, map_parallel(self._find_blob, wanted), strict=True))
        blobs |= self._find_earlier([digest for digest in wanted if blobs[digest] is None])
        return {digest: blob for digest, blob in blobs.items() if blob is not None}

    def _find_blob(self, digest: str) -> Blob | None:
        is_valid = ContentItem.expires_at.does_not_exist() | (ContentItem.expires_at > to_moment(self._clock()))
        found = self._content.query(digest, filter_condition=is_valid, consistent_read=True, limit=_MAX_FOUND)
        item = max(found, key=lambda item: _find_expiry(item.expires_at), default=None)
        return Blob(item.sha256, item.key, int(item.size), item.etag, item.version) if item is not None else None

    def _find_earlier(self, digests: Iterable[str]) -> dict[str, Blob]:
        now = self._clock()
        keys = [prefix + digest for prefix in (_STAGED, "") for digest in digests]
        items = {item.digest: item for item in self._blobs.batch_get(keys, consistent_read=True)}
        return {
            key.removeprefix(_STAGED): Blob(item.sha256, item.key, int(item.size), item.etag)
            for key in keys
            if (item := items.get(key)) is not None and not _has_expired(item.expires_at, now)
        }

    @translate_errors()
    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        expiry = None if expires_at is None else to_moment(expires_at)
        version = secrets.token_hex(8)
        items = {
            (digest, blob.key): self._content(
                digest,
                blob.key,
                sha256=blob.sha256,
                size=blob.size,
                etag=blob.etag,
                version=version,
                expires_at=expiry,
            )
            for digest, blob in blobs
        }
        write_parallel(lambda batch: save_items(self._content, batch), items.values(), BATCH_LIMIT)

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
    def find_kept_upload(self, digest: str) -> KeptUpload | None:
        item = find_item(self._uploads, _UPLOAD + digest)
        if item is None or _has_expired(item.expires_at, self._clock()):
            return None
        key = UploadKey(item.plan_id, int(item.group), int(item.position))
        return KeptUpload(key, item.expires_at.timestamp())

    @translate_errors()
    def put_kept_upload(self, digest: str, upload: KeptUpload) -> None:
        key, expires_at = upload.key, to_moment(upload.expires_at)
        self._uploads(
            _UPLOAD + digest, plan_id=key.plan_id, group=key.group, position=key.position, expires_at=expires_at
        ).save()

    @translate_errors()
    def forget_blob(self, digest: str, blob: Blob) -> None:
        if blob.version:
            delete_item(self._content(digest, blob.key), ContentItem.version == blob.version)
        else:
            self._forget_earlier([(digest, blob.key), (_STAGED + digest, blob.key)])

    @translate_errors()
    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        unique = list(dict.fromkeys(references))
        items = [self._content(digest, key) for digest, key in unique]
        write_parallel(lambda batch: delete_items(self._content, batch), items, BATCH_LIMIT)
        write_parallel(self._forget_earlier, unique, BATCH_GET_LIMIT)

    def _forget_earlier(self, references: Iterable[tuple[str, str]]) -> None:
        keys: dict[str, set[str]] = {}
        for digest, key in references:
            keys.setdefault(digest, set()).add(key)
        for item in self._blobs.batch_get(list(keys), consistent_read=True, attributes_to_get=["digest", "key"]):
            if item.key in keys[item.digest]:
                delete_item(self._blobs(item.digest), BlobItem.key == item.key)


def _find_expiry(expires_at: datetime | None) -> float:
    return math.inf if expires_at is None else expires_at.timestamp()


def _has_expired(expires_at: datetime | None, now: float) -> bool:
    """Return whether the blob has expired. DynamoDB deletes expired items only within days.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html
    """
    return _find_expiry(expires_at) <= now
