"""Metadata of model cards on the Hub. Authors write it, so that every value may have any type and any length."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from modelhaul.domain.hub_names import is_hub_id
from modelhaul.domain.model_cards import BaseModelRelation, ModelCard

_MAX_LICENSES = 100
_MAX_BASE_MODELS = 20
_MAX_URL = 500  # characters
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]{1,100}")
# A URL that is also a valid IRI-reference, as bills of materials require: https://www.rfc-editor.org/rfc/rfc3986#appendix-A
_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_URL = re.compile(
    rf"https?://[A-Za-z0-9._-]+(?::[0-9]{{1,5}})?(?:/{_CHARACTER}*)?(?:\?(?:{_CHARACTER}|\?)*)?"
    rf"(?:#(?:{_CHARACTER}|\?)*)?"
)


def parse_card(data: object, *, library: object, pipeline_tag: object) -> ModelCard | None:
    """Return the valid parts of the card, None if there are none. Invalid values are omitted.

    `data` are the attributes of the card's metadata. `library` and `pipeline_tag` are what the Hub says about the
    model, which may be more than its card has.
    """

    def read(name: str) -> object:
        return getattr(data, name, None)

    base_models = _select(read("base_model"), is_hub_id)[:_MAX_BASE_MODELS]
    licenses = _select(read("license"), _is_slug)
    card = ModelCard(
        licenses=licenses[:_MAX_LICENSES],
        license_name=_find(read("license_name"), lambda text: _TEXT.fullmatch(text) is not None),
        license_link=_find(read("license_link"), _is_url),
        base_models=base_models,
        base_model_relation=_find_relation(read("base_model_relation")) if base_models else None,
        library=_find(library, _is_slug) or _find(read("library_name"), _is_slug),
        pipeline_tag=_find(pipeline_tag, _is_slug) or _find(read("pipeline_tag"), _is_slug),
        omits_licenses=len(licenses) > _MAX_LICENSES or not all(map(_is_license, _list(read("license")))),
    )
    return None if card == ModelCard() else card


def _select(value: object, is_valid: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the valid texts of a text or a list, in order."""
    found = (text for text in _list(value) if isinstance(text, str) and is_valid(text))
    return tuple(dict.fromkeys(found))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_license(value: object) -> bool:
    """Return whether the value is a valid license, or none."""
    return value is None or value == "" or (isinstance(value, str) and _is_slug(value))


def _find(value: object, is_valid: Callable[[str], bool]) -> str | None:
    return value if isinstance(value, str) and is_valid(value) else None


def _is_slug(text: str) -> bool:
    return _SLUG.fullmatch(text) is not None


def _find_relation(value: object) -> BaseModelRelation | None:
    return BaseModelRelation(value) if isinstance(value, str) and value in BaseModelRelation else None


def _is_url(text: str) -> bool:
    """Return whether the text is an absolute URL. A card may also have a path in the repository, such as LICENSE."""
    if len(text) > _MAX_URL or not _URL.fullmatch(text):
        return False
    try:
        return bool(urlsplit(text).hostname)
    except ValueError:
        return False
