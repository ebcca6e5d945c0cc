"""Decisions of the import policy in the items of tasks and models."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from modelhaul.domain.policy_results import OpenRule, PolicyDecision, PolicyResult, PolicyWarning

# DynamoDB bills each update of a task by the size of its item. The same rules match most models of an archive.
_MAX_PACKED = 64 * 1024  # bytes
_WARNINGS = (20, 5, 1, 0)  # kept for each model, so that the results fit


def pack_result(result: PolicyResult) -> bytes:
    """Compress one result, which is shortened."""
    return _pack(_write(result.shorten()))


def unpack_result(packed: bytes | None) -> PolicyResult | None:
    return None if packed is None else _read(_unpack(packed))


def pack_results(results: Mapping[str, PolicyResult]) -> bytes:
    """Compress the results of up to 90 models. If they are too long, the last warnings of each model are dropped, and
    finally the values for which rules match.
    """
    shortened = {model_id: result.shorten() for model_id, result in results.items()}
    for count in _WARNINGS:
        kept = {model_id: replace(r, warnings=r.warnings[:count]) for model_id, r in shortened.items()}
        packed = _pack({model_id: _write(result) for model_id, result in kept.items()})
        if len(packed) <= _MAX_PACKED:
            return packed
    return _pack({model_id: _write(replace(r, warnings=(), matched=())) for model_id, r in shortened.items()})


def unpack_results(packed: bytes | None) -> dict[str, PolicyResult]:
    return {} if packed is None else {model_id: _read(found) for model_id, found in _unpack(packed).items()}


def _pack(value: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(value).encode(), level=9)


def _unpack(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(packed))
    return found


def _write(result: PolicyResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if value}


def _read(found: Mapping[str, Any]) -> PolicyResult:
    return PolicyResult(
        PolicyDecision(found["decision"]),
        found.get("rule_id"),
        found.get("reason"),
        tuple(found.get("matched", ())),
        tuple(PolicyWarning(w["rule_id"], w["reason"], tuple(w["matched"])) for w in found.get("warnings", ())),
        tuple(OpenRule(o["rule_id"], tuple(o["facts"])) for o in found.get("open_rules", ())),
        found.get("digest", ""),
    )
