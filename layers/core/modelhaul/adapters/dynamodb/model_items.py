"""DynamoDB items of models."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    MapAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, IncludeProjection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import is_key
from modelhaul.adapters.dynamodb.policy_items import unpack_result
from modelhaul.adapters.dynamodb.task_items import (
    ErrorMap,
    from_error,
    pack_selection,
    to_model_error,
    unpack_selection,
)
from modelhaul.domain.findings import FileInspection, FileVerdict, Finding, FindingKind, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.model_cards import BaseModelRelation, ModelCard
from modelhaul.domain.models import Model, ModelPin, ModelStatus, ResolvedModel, Source
from modelhaul.domain.signatures import ModelSignature

READY, DELETING = "ready", "deleting"  # values of the attribute `shelf`


class ModelsByShelf(GlobalSecondaryIndex["ModelItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of READY and DELETING models. An import writes to it only once."""

    class Meta:
        index_name = "models-by-shelf"
        projection = AllProjection()

    shelf = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class ModelsByHubName(GlobalSecondaryIndex["ModelItem"]):  # type: ignore[no-untyped-call]
    """Index of all models by `hub_name`, and of the names and revisions in `HubNameItem`."""

    class Meta:
        index_name = "models-by-hub-name"
        projection = IncludeProjection(
            [
                "source",
                "name",
                "revision",
                "commit",
                "root",
                "selection",
                "status",
                "task_id",
                "updated_at",
                "files",
                "size",
                "canonical_name",
            ]
        )

    hub_name = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class SignatureMap(MapAttribute[str, Any]):
    """Attributes of a ModelSignature."""

    key_arn = UnicodeAttribute()
    public_key = UnicodeAttribute()
    signed_at = UTCDateTimeAttribute()


class PinMap(MapAttribute[str, Any]):
    """Attributes of a ModelPin."""

    pinned_at = UTCDateTimeAttribute()
    pinned_by = UnicodeAttribute(null=True)
    reason = UnicodeAttribute(null=True)


class ModelItem(Item):
    """Item of a model.

    `gate`, `policy` and `selection` are zlib-compressed JSON of the fields of GateReport, PolicyResult and Selection.
    `selection` is absent if it includes all files. `card` is JSON of the fields of ModelCard. `gated` and
    `committed_at` are absent if unknown. `lower_name` is the attribute for name searches, `hub_name` is the `hub_id` in
    lower case.
    `shelf` is absent unless the model is READY or DELETING, the lease attributes are absent unless it is DELETING.
    `last_read_on` is an ISO date. `may_redirect` is absent unless it is true.
    """

    by_shelf = ModelsByShelf()
    by_hub_name = ModelsByHubName()

    model_id = UnicodeAttribute(hash_key=True)
    source = UnicodeAttribute()
    name = UnicodeAttribute()
    revision = UnicodeAttribute()
    commit = UnicodeAttribute()
    root = UnicodeAttribute(null=True)
    selection = BinaryAttribute(null=True, legacy_encoding=False)
    card = UnicodeAttribute(null=True)
    gated = BooleanAttribute(null=True)
    committed_at = UTCDateTimeAttribute(null=True)
    status = UnicodeAttribute()
    task_id = UnicodeAttribute()
    created_at = UTCDateTimeAttribute()
    updated_at = UTCDateTimeAttribute()
    files = NumberAttribute()
    size = NumberAttribute()
    gate = BinaryAttribute(legacy_encoding=False, null=True)
    policy = BinaryAttribute(legacy_encoding=False, null=True)
    error = ErrorMap(null=True)  # type: ignore[no-untyped-call]
    shelf = UnicodeAttribute(null=True)
    lower_name = UnicodeAttribute()
    hub_name = UnicodeAttribute()
    last_read_on = UnicodeAttribute(null=True)
    may_redirect = BooleanAttribute(null=True)
    submitted_by = UnicodeAttribute(null=True)
    deleted_by = UnicodeAttribute(null=True)
    signature = SignatureMap(null=True)  # type: ignore[no-untyped-call]
    pin = PinMap(null=True)  # type: ignore[no-untyped-call]
    bytes_reused = NumberAttribute(null=True)
    lease_owner = UnicodeAttribute(null=True)
    lease_until = NumberAttribute(null=True)


class HubNameItem(Item):
    """Item of a name or a revision that stands for models, in the table of models.

    A name has `canonical_name`, a revision has `revision` and `commit`. `model_id` is `name#NAME` or
    `revision#NAME#REVISION`, where NAME is the `hub_name`: the ID of a model never contains `#`.
    """

    model_id = UnicodeAttribute(hash_key=True)
    hub_name = UnicodeAttribute()
    created_at = UTCDateTimeAttribute()
    canonical_name = UnicodeAttribute(null=True)
    revision = UnicodeAttribute(null=True)
    commit = UnicodeAttribute(null=True)


def is_model_id(text: str) -> bool:
    """Return whether the text can be the ID of a model. The key of a HubNameItem cannot."""
    return is_key(text) and "#" not in text


def to_model(item: ModelItem) -> Model:
    return Model(
        model_id=item.model_id,
        resolved=ResolvedModel(
            Source(item.source),
            item.name,
            item.revision,
            item.commit,
            item.root or "",
            unpack_selection(item.selection),
            _unpack_card(item.card),
            item.gated,
            item.committed_at,
        ),
        status=ModelStatus(item.status),
        task_id=item.task_id,
        created_at=item.created_at,
        updated_at=item.updated_at,
        files=int(item.files),
        size=int(item.size),
        gate=_unpack_gate(item.gate),
        error=to_model_error(item.error),
        last_read_on=date.fromisoformat(item.last_read_on) if item.last_read_on else None,
        may_redirect=bool(item.may_redirect),
        submitted_by=item.submitted_by,
        deleted_by=item.deleted_by,
        signature=_to_signature(item.signature),
        policy=unpack_result(item.policy),
        pin=_to_pin(item.pin),
        bytes_reused=int(item.bytes_reused or 0),
    )


def _pack_card(card: ModelCard) -> str:
    found = asdict(card)
    if not card.omits_licenses:
        del found["omits_licenses"]  # functions of earlier versions do not know it
    return json.dumps(found, ensure_ascii=False)


def _unpack_card(text: str | None) -> ModelCard | None:
    if text is None:
        return None
    found = json.loads(text)
    relation = found["base_model_relation"]
    return ModelCard(
        **{
            **found,
            "licenses": tuple(found["licenses"]),
            "base_models": tuple(found["base_models"]),
            "base_model_relation": BaseModelRelation(relation) if relation else None,
        }
    )


def from_signature(signature: ModelSignature) -> SignatureMap:
    return SignatureMap(**asdict(signature))  # type: ignore[no-untyped-call]


def _to_signature(found: SignatureMap | None) -> ModelSignature | None:
    return None if found is None else ModelSignature(found.key_arn, found.public_key, found.signed_at)


def from_pin(pin: ModelPin) -> PinMap:
    return PinMap(**asdict(pin))  # type: ignore[no-untyped-call]


def _to_pin(found: PinMap | None) -> ModelPin | None:
    return None if found is None else ModelPin(found.pinned_at, found.pinned_by, found.reason)


def pack_gate(report: GateReport) -> bytes:
    return zlib.compress(json.dumps(asdict(report), ensure_ascii=False).encode())


def _unpack_gate(packed: bytes | None) -> GateReport | None:
    if packed is None:
        return None
    found = json.loads(zlib.decompress(packed))
    opinion = found.get("second_opinion")
    return GateReport(
        GateVerdict(found["verdict"]),
        tuple(found["reasons"]),
        tuple(found["flags"]),
        tuple((path, sha256) for path, sha256 in found["scanned"]),
        SecondOpinion(opinion) if opinion else None,
        tuple(_to_file_inspection(file) for file in found.get("files", ())),
        tuple(found.get("left_out", ())),
    )


def _to_file_inspection(found: dict[str, Any]) -> FileInspection:
    findings = tuple(Finding(FindingKind(f["kind"]), Severity(f["severity"]), f["detail"]) for f in found["findings"])
    return FileInspection(**{**found, "verdict": FileVerdict(found["verdict"]), "findings": findings})


def from_model(items: type[ModelItem], model: Model) -> ModelItem:
    return items(
        model_id=model.model_id,
        source=model.resolved.source,
        name=model.resolved.name,
        lower_name=model.resolved.name.lower(),
        hub_name=model.resolved.hub_id.lower(),
        revision=model.resolved.revision,
        commit=model.resolved.commit,
        root=model.resolved.root or None,
        selection=pack_selection(model.resolved.selection),
        card=_pack_card(model.resolved.card) if model.resolved.card else None,
        gated=model.resolved.gated,
        committed_at=model.resolved.committed_at,
        status=model.status,
        task_id=model.task_id,
        created_at=model.created_at,
        updated_at=model.updated_at,
        files=model.files,
        size=model.size,
        error=from_error(model.error) if model.error else None,
        may_redirect=model.may_redirect or None,
        submitted_by=model.submitted_by,
        deleted_by=model.deleted_by,
    )


def read_models(items: type[ModelItem], model_ids: Sequence[str]) -> list[Model]:
    """Return the existing models, in the order of `model_ids`. Strongly consistent."""
    found = {item.model_id: to_model(item) for item in items.batch_get(model_ids, consistent_read=True)}
    return [found[model_id] for model_id in model_ids if model_id in found]
