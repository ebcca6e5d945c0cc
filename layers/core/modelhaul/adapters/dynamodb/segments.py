"""SegmentRepository on Amazon DynamoDB."""

import hashlib
import struct
import time
from collections.abc import Sequence
from datetime import datetime

from pynamodb.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import (
    CancelledError,
    bind_item,
    delete_item,
    open_transaction,
    retry_write,
    to_moment,
    translate_errors,
    update_item,
)
from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.files import Part
from modelhaul.domain.segments import Claim, FileUpload, UploadKey
from modelhaul.ports.clock import Clock
from modelhaul.ports.segments import SegmentRepository

_TTL = 14 * 86_400  # seconds after the last write of an item
_PART = struct.Struct(">16sI")  # ETag and CRC-32


class UploadItem(Item):
    """Item of the table of files.

    - `u00000007.000`: the upload of the first file of a group. `claims` are packed.
    - `p00000007.000.<upload>.00005`: consecutive parts of an upload, from part 5 on, packed as `_PART`.
    """

    plan_id = UnicodeAttribute(hash_key=True, attr_name="task_id")
    key = UnicodeAttribute(range_key=True, attr_name="path")
    upload_id = UnicodeAttribute(null=True)
    size = NumberAttribute(null=True)
    part_size = NumberAttribute(null=True)
    source_etag = UnicodeAttribute(null=True)
    ranged = BooleanAttribute(null=True)
    hashed = NumberAttribute(null=True)
    hash_state = BinaryAttribute(null=True, legacy_encoding=False)
    claims = BinaryAttribute(null=True, legacy_encoding=False)
    version = NumberAttribute(null=True)
    parts = BinaryAttribute(null=True, legacy_encoding=False)
    expires_at = TTLAttribute()


def _upload_key(key: UploadKey) -> str:
    return f"u{key.group:08}.{key.position:03}"


def _parts_prefix(key: UploadKey, upload_id: str) -> str:
    # IDs of uploads are long.
    return f"p{key.group:08}.{key.position:03}.{hashlib.sha256(upload_id.encode()).hexdigest()[:16]}."


def _to_upload(item: UploadItem) -> FileUpload:
    return FileUpload(
        upload_id=item.upload_id,
        size=int(item.size),
        part_size=int(item.part_size),
        source_etag=item.source_etag,
        ranged=bool(item.ranged),
        hashed=int(item.hashed),
        hash_state=item.hash_state,
        claims=tuple(Claim(*fields) for fields in unpack(item.claims)),
        version=int(item.version),
    )


class DynamoDBSegmentRepository(SegmentRepository):
    """Uploads and their parts in the table of files. The items of a plan are in one partition."""

    def __init__(self, connection: Connection, *, files_table: str, clock: Clock = time.time) -> None:
        self._connection = connection
        self._items = bind_item(UploadItem, files_table, connection)
        self._clock = clock

    @translate_errors()
    def find_upload(self, key: UploadKey) -> FileUpload | None:
        try:
            return _to_upload(self._items.get(key.plan_id, _upload_key(key), consistent_read=True))
        except DoesNotExist:
            return None

    @translate_errors()
    def create_upload(self, key: UploadKey, upload: FileUpload) -> bool:
        item = self._items(key.plan_id, _upload_key(key))
        actions = [
            UploadItem.upload_id.set(upload.upload_id),
            UploadItem.size.set(upload.size),
            UploadItem.part_size.set(upload.part_size),
            UploadItem.ranged.set(upload.ranged),
            *([UploadItem.source_etag.set(upload.source_etag)] if upload.source_etag is not None else []),
            *self._list_changes(upload),
        ]
        return update_item(item, actions, UploadItem.upload_id.does_not_exist(), await_capacity=True)

    @translate_errors()
    def replace_upload(
        self, key: UploadKey, known: FileUpload, changed: FileUpload, parts: Sequence[Part] = ()
    ) -> bool:
        item = self._items(key.plan_id, _upload_key(key))
        is_known = (UploadItem.upload_id == known.upload_id) & (UploadItem.version == known.version)
        if not parts:
            return update_item(item, self._list_changes(changed), is_known, await_capacity=True)
        recorded = self._items(key.plan_id, f"{_parts_prefix(key, known.upload_id)}{parts[0].number:05}")
        packed = b"".join(_PART.pack(bytes.fromhex(part.etag), part.crc32) for part in parts)

        def write() -> bool:
            try:
                with open_transaction(self._connection) as transaction:
                    transaction.update(item, actions=self._list_changes(changed), condition=is_known)
                    expiry = UploadItem.expires_at.set(self._find_expiry())
                    transaction.update(recorded, actions=[UploadItem.parts.set(packed), expiry])
            except CancelledError as cancelled:
                if cancelled.is_refused:
                    return False
                raise
            return True

        return retry_write(write, await_capacity=True)

    @translate_errors()
    def delete_upload(self, key: UploadKey, upload_id: str) -> None:
        delete_item(self._items(key.plan_id, _upload_key(key)), UploadItem.upload_id == upload_id)

    @translate_errors()
    def list_parts(self, key: UploadKey, upload_id: str) -> list[Part]:
        prefix = _parts_prefix(key, upload_id)
        return [
            Part(number, etag.hex(), crc32)
            for item in self._items.query(key.plan_id, UploadItem.key.startswith(prefix), consistent_read=True)
            for number, (etag, crc32) in enumerate(
                _PART.iter_unpack(item.parts), start=int(item.key.removeprefix(prefix))
            )
        ]

    def _list_changes(self, upload: FileUpload) -> list[Action]:
        claims = [(claim.first, claim.end, claim.owner, claim.until) for claim in upload.claims]
        return [
            UploadItem.hashed.set(upload.hashed),
            *([UploadItem.hash_state.set(upload.hash_state)] if upload.hash_state is not None else []),
            UploadItem.claims.set(pack(claims)),
            UploadItem.version.set(upload.version),
            UploadItem.expires_at.set(self._find_expiry()),
        ]

    def _find_expiry(self) -> datetime:
        return to_moment(self._clock() + _TTL)
