"""SegmentRepository on Amazon DynamoDB."""

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    JSONAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
)
from pynamodb.connection import Connection
from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

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
_UPLOAD = "u"
_PART = struct.Struct(">16sI")  # ETag and CRC-32


class UploadItem(Item):
    """Item of the table of files.

    - `u00000007.000`: the upload of the first file of a group. `claims` are packed. `parts_key` is a list of the plan,
      group and position.
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
    object_key = UnicodeAttribute(null=True)
    parts_key = JSONAttribute(null=True)
    is_taken_over = BooleanAttribute(null=True)
    parts = BinaryAttribute(null=True, legacy_encoding=False)
    expires_at = TTLAttribute()


def _upload_key(key: UploadKey) -> str:
    return f"{_UPLOAD}{key.group:08}.{key.position:03}"


def _parts_prefix(key: UploadKey, upload_id: str) -> str:
    # IDs of uploads are long.
    return f"p{key.group:08}.{key.position:03}.{hashlib.sha256(upload_id.encode()).hexdigest()[:16]}."


def _parse_key(item: UploadItem) -> UploadKey:
    group, position = item.key.removeprefix(_UPLOAD).split(".")
    return UploadKey(item.plan_id, int(group), int(position))


def _is_known(known: FileUpload) -> Condition:
    is_known: Condition = (UploadItem.upload_id == known.upload_id) & (UploadItem.version == known.version)
    return is_known


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
        object_key=item.object_key,
        parts_key=UploadKey(*item.parts_key) if item.parts_key is not None else None,
        is_taken_over=bool(item.is_taken_over),
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
        return update_item(
            item, self._list_attributes(upload), UploadItem.upload_id.does_not_exist(), await_capacity=True
        )

    @translate_errors()
    def replace_upload(
        self, key: UploadKey, known: FileUpload, changed: FileUpload, parts: Sequence[Part] = ()
    ) -> bool:
        item = self._items(key.plan_id, _upload_key(key))
        if not parts:
            return update_item(item, self._list_changes(changed), _is_known(known), await_capacity=True)
        parts_key = known.parts_key or key
        first = f"{_parts_prefix(parts_key, known.upload_id)}{parts[0].number:05}"
        recorded = self._items(parts_key.plan_id, first)
        packed = b"".join(_PART.pack(bytes.fromhex(part.etag), part.crc32) for part in parts)

        def write(transaction: TransactWrite) -> None:
            transaction.update(item, actions=self._list_changes(changed), condition=_is_known(known))
            expiry = UploadItem.expires_at.set(self._find_expiry())
            transaction.update(recorded, actions=[UploadItem.parts.set(packed), expiry])

        return self._commit(write)

    @translate_errors()
    def take_over_upload(self, source: UploadKey, known: FileUpload, key: UploadKey) -> bool:
        last, first = known.hand_over(source)
        taken = self._items(source.plan_id, _upload_key(source))
        item = self._items(key.plan_id, _upload_key(key))

        def write(transaction: TransactWrite) -> None:
            actions = [*self._list_changes(last), UploadItem.is_taken_over.set(True)]
            transaction.update(taken, actions=actions, condition=_is_known(known))
            is_new = UploadItem.upload_id.does_not_exist()
            transaction.update(item, actions=self._list_attributes(first), condition=is_new)

        return self._commit(write)

    @translate_errors()
    def delete_upload(self, key: UploadKey, upload_id: str) -> bool:
        is_own = (UploadItem.upload_id == upload_id) & UploadItem.is_taken_over.does_not_exist()
        return delete_item(self._items(key.plan_id, _upload_key(key)), is_own)

    @translate_errors()
    def list_uploads(self, plan_id: str) -> dict[UploadKey, FileUpload]:
        items = self._items.query(plan_id, UploadItem.key.startswith(_UPLOAD), consistent_read=True)
        return {_parse_key(item): _to_upload(item) for item in items}

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

    def _commit(self, write: Callable[[TransactWrite], None]) -> bool:
        """Commit a transaction. Return False if a condition does not hold."""

        def commit() -> bool:
            try:
                with open_transaction(self._connection) as transaction:
                    write(transaction)
            except CancelledError as cancelled:
                if cancelled.is_refused:
                    return False
                raise
            return True

        return retry_write(commit, await_capacity=True)

    def _list_attributes(self, upload: FileUpload) -> list[Action]:
        key = upload.parts_key
        return [
            UploadItem.upload_id.set(upload.upload_id),
            UploadItem.size.set(upload.size),
            UploadItem.part_size.set(upload.part_size),
            *([UploadItem.object_key.set(upload.object_key)] if upload.object_key is not None else []),
            *([UploadItem.parts_key.set([key.plan_id, key.group, key.position])] if key is not None else []),
            *self._list_changes(upload),
        ]

    def _list_changes(self, upload: FileUpload) -> list[Action]:
        claims = [(claim.first, claim.end, claim.owner, claim.until) for claim in upload.claims]
        return [
            *([UploadItem.source_etag.set(upload.source_etag)] if upload.source_etag is not None else []),
            UploadItem.ranged.set(upload.ranged),
            UploadItem.hashed.set(upload.hashed),
            *([UploadItem.hash_state.set(upload.hash_state)] if upload.hash_state is not None else []),
            UploadItem.claims.set(pack(claims)),
            UploadItem.version.set(upload.version),
            UploadItem.expires_at.set(self._find_expiry()),
        ]

    def _find_expiry(self) -> datetime:
        return to_moment(self._clock() + _TTL)
