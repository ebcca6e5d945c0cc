"""What the Hub says about a model's card arrives with the answer that names the commit."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from modelhaul.domain.model_cards import BaseModelRelation, ModelCard
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from modelhaul_sources.model_cards import parse_card
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubRepository

README = b"""---
license: other
license_name: bespoke
license_link: https://example.com/LICENSE
base_model:
- org/base
- "no model: at all"
- gpt2
base_model_relation: quantized
library_name: transformers
pipeline_tag: text-generation
tags: [tiny]
---
# A model
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        files = {"config.json": b"{}"}
        branches = {
            "main": {**files, "README.md": README},
            "plain": {**files, "README.md": b"# No metadata\n"},
            "none": files,
            "odd": {**files, "README.md": b"---\nlicense: [mit, 7, {a: b}]\nbase_model: {x: y}\nmodel-index: 5\n---\n"},
        }
        hub.add_repository(HubRepository("org/model", branches))
        yield hub


def read_card(hub: LoopbackHub, revision: str) -> ModelCard | None:
    source = HuggingFaceSource(HostPolicy.for_hub(hub.endpoint, local_mode=True))
    return source.resolve("org/model", revision).card


def test_card_is_that_of_the_revision(hub: LoopbackHub) -> None:
    assert read_card(hub, "main") == ModelCard(
        licenses=("other",),
        license_name="bespoke",
        license_link="https://example.com/LICENSE",
        base_models=("org/base", "gpt2"),
        base_model_relation=BaseModelRelation.QUANTIZED,
        library="transformers",
        pipeline_tag="text-generation",
    )
    assert [record.origin for record in hub.requests] == ["api"], "no request of its own"


@pytest.mark.parametrize("revision", ["plain", "none"])
def test_model_without_metadata_has_no_card(hub: LoopbackHub, revision: str) -> None:
    assert read_card(hub, revision) is None


def test_invalid_values_are_omitted(hub: LoopbackHub) -> None:
    assert read_card(hub, "odd") == ModelCard(licenses=("mit",), omits_licenses=True)


@pytest.mark.parametrize(
    ("value", "found", "omits"),
    [
        (None, 0, False),
        ("", 0, False),
        ([], 0, False),
        ("gpl-3.0", 1, False),
        ("My own license", 0, True),
        (["mit", "My own license"], 1, True),
        ([f"l-{n}" for n in range(100)] * 2, 100, False),
        ([f"l-{n}" for n in range(101)], 100, True),
    ],
)
def test_omitted_licenses_are_noted(value: object, found: int, omits: bool) -> None:
    """So that a license cannot hide from a policy."""
    card = parse_card(SimpleNamespace(license=value), library=None, pipeline_tag=None) or ModelCard()
    assert (len(card.licenses), card.omits_licenses) == (found, omits)
