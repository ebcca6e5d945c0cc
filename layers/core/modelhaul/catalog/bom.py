"""Bills of materials of models: CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

The model is the subject (`metadata.component`), its files are the components. What the inspection found are
annotations: they have no identifier and no rating that a vulnerability requires. The document depends only on the
model's record, its manifest and the stack's sources, so that a repeated request returns the same document.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import quote

from modelhaul.catalog.licenses import find_spdx_identifier
from modelhaul.catalog.presentation import format_time
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import Model, ResolvedModel, Source

_SERIAL_NAMESPACE = uuid.UUID("3a0b5c1e-7f0d-5b7e-8c36-52a1d0a7c9e4")
_TOOL = {"type": "application", "name": "modelhaul"}
_MODEL_REF = "model"
_HUGGINGFACE = "https://huggingface.co"
_GITHUB = "https://github.com"

type _Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceUrls:
    """Web URLs of the Hub and of GitHub, from which the models come."""

    huggingface: str
    github: str


def build_bom(model: Model, manifest: _Json, urls: SourceUrls, *, location: str) -> bytes:
    """Return the bill of materials of a READY model. `location`: the S3 URL of its files."""
    published_at = format_time(model.updated_at)
    files = manifest["files"]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Each import of a model has its own.
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIAL_NAMESPACE, f'{model.model_id}:{model.task_id}')}",
        "version": 1,
        "metadata": {
            "timestamp": published_at,
            "tools": {"components": [_TOOL]},
            "component": _describe_model(model, manifest, urls, location),
        },
        "components": [_describe_file(file) for file in files],
        "compositions": [
            {
                "aggregate": "complete" if _is_complete(model, manifest) else "incomplete",
                "assemblies": [_MODEL_REF],
            }
        ],
        "annotations": list(_annotate(manifest, published_at)),
    }
    return json.dumps(bom, ensure_ascii=False, separators=(",", ":")).encode()


def _is_complete(model: Model, manifest: _Json) -> bool:
    """Return whether the components are all files of the commit."""
    left_out = _read_gate(manifest).get("left_out")
    return model.resolved.selection.is_whole and not left_out and not manifest.get("not_followed")


def _read_gate(manifest: _Json) -> _Json:
    """Return the result of the inspection. Manifests of earlier versions have none, or one without `left_out`."""
    gate: _Json = manifest.get("gate", {})
    return gate


def _describe_model(model: Model, manifest: _Json, urls: SourceUrls, location: str) -> _Json:
    resolved, card = model.resolved, model.resolved.card or ModelCard()
    owner, _, name = resolved.name.rpartition("/")
    purl, page = _find_purl(resolved, urls), _find_page(resolved, urls)
    licenses = list(_list_licenses(card))
    references = [{"type": "distribution", "url": quote(location, safe=":/")}]
    if page is not None:
        references.append({"type": "vcs", "url": page})
    if card.license_link is not None:
        references.append({"type": "license", "url": card.license_link})
    gate = _read_gate(manifest)
    properties = {
        "modelId": model.model_id,
        "hubId": resolved.hub_id,
        "source": resolved.source.value,
        "commit": resolved.commit,
        "revision": resolved.revision,
        "taskId": model.task_id,
        "library": card.library,
        "inspection:verdict": gate.get("verdict"),
        "inspection:secondOpinion": gate.get("second_opinion"),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        **({"group": owner} if owner else {}),
        "name": name,
        "version": resolved.commit,
        **({"purl": purl} if purl else {}),
        **({"licenses": licenses} if licenses else {}),
        **({"pedigree": {"ancestors": list(_list_ancestors(card, urls))}} if card.base_models else {}),
        "externalReferences": references,
        **({"modelCard": {"modelParameters": {"task": card.pipeline_tag}}} if card.pipeline_tag else {}),
        "properties": _list_properties(properties),
    }


def _list_licenses(card: ModelCard) -> Iterator[_Json]:
    for license_id in card.licenses:
        spdx = find_spdx_identifier(license_id)
        own_name = card.license_name if license_id == "other" else None
        yield {
            "license": {
                **({"id": spdx} if spdx else {"name": own_name or license_id}),
                "acknowledgement": "declared",
                **({"url": card.license_link} if card.license_link and spdx is None else {}),
            }
        }


def _list_ancestors(card: ModelCard, urls: SourceUrls) -> Iterator[_Json]:
    """Yield the base models. Their versions are unknown."""
    for base in card.base_models:
        owner, _, name = base.rpartition("/")
        yield {
            "type": "machine-learning-model",
            **({"group": owner} if owner else {}),
            "name": name,
            "purl": _build_purl("huggingface", base, None, urls.huggingface, _HUGGINGFACE),
            **(
                {"properties": _list_properties({"baseModelRelation": card.base_model_relation.value})}
                if card.base_model_relation
                else {}
            ),
        }


def _describe_file(file: _Json) -> _Json:
    inspection = file.get("inspection", {})
    properties = {
        "size": file["size"],
        "sourceDigest": file["source_digest"],
        "inspection:format": inspection.get("format"),
        "inspection:verdict": inspection.get("verdict"),
        "inspection:reason": inspection.get("reason"),
    }
    return {
        "type": "file",
        "bom-ref": _refer_to(file),
        "name": file["path"],
        "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
        "properties": _list_properties(properties),
    }


def _annotate(manifest: _Json, published_at: str) -> Iterator[_Json]:
    """Yield the findings of each file, and the reasons why the model is unsafe."""
    reasons = [(_MODEL_REF, reason) for reason in _read_gate(manifest).get("reasons", ())]
    findings = (
        (_refer_to(file), f"{finding['severity']}: {finding['kind']}: {finding['detail']}")
        for file in manifest["files"]
        for finding in file.get("inspection", {}).get("findings", ())
    )
    # Reasons are shortened, so that those of a long path may be equal. Annotations must be unique.
    for reference, text in dict.fromkeys(chain(reasons, findings)):
        yield {
            "subjects": [reference],
            "annotator": {"component": _TOOL},
            "timestamp": published_at,
            "text": text,
        }


def _refer_to(file: _Json) -> str:
    return f"file:{file['path']}"


def _list_properties(values: _Json) -> list[_Json]:
    return [{"name": f"modelhaul:{name}", "value": str(value)} for name, value in values.items() if value is not None]


def _find_purl(model: ResolvedModel, urls: SourceUrls) -> str | None:
    """Return the package URL of the model, None for a model of an archive.

    https://github.com/package-url/purl-spec/tree/main/types-doc
    """
    match model.source:
        case Source.HUGGINGFACE:
            return _build_purl("huggingface", model.name, model.commit, urls.huggingface, _HUGGINGFACE)
        case Source.GITHUB:
            return _build_purl("github", model.name.lower(), model.commit, urls.github, _GITHUB)
        case Source.LOCAL:
            return None


def _build_purl(kind: str, name: str, commit: str | None, url: str, default_url: str) -> str:
    qualifier = "" if url.rstrip("/") == default_url else f"?repository_url={_quote_all([url], safe=':')}"
    version = f"@{commit}" if commit else ""
    return f"pkg:{kind}/{_quote_all(name.split('/'))}{version}{qualifier}"


def _quote_all(segments: Iterable[str], *, safe: str = "") -> str:
    return "/".join(quote(segment, safe=safe) for segment in segments)


def _find_page(model: ResolvedModel, urls: SourceUrls) -> str | None:
    """Return the URL of the commit's page at the source, None for a model of an archive."""
    url = {Source.HUGGINGFACE: urls.huggingface, Source.GITHUB: urls.github}.get(model.source)
    return None if url is None else f"{url.rstrip('/')}/{quote(model.name)}/tree/{model.commit}"
