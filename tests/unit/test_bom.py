"""Bills of materials: valid CycloneDX for every model that can be published, and what they say."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from modelhaul import wiring
from modelhaul.catalog.bom import SourceUrls, build_bom
from modelhaul.catalog.licenses import find_spdx_identifier
from modelhaul.catalog.presentation import present_card
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.model_cards import BaseModelRelation, ModelCard
from modelhaul.domain.models import Model, Source
from modelhaul.domain.selection import Selection
from modelhaul.domain.tasks import TaskStatus
from modelhaul_sources.model_cards import parse_card
from tests.archives.zipping import zip_files
from tests.fakes.deployment import SOURCE_URLS, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import call_api, read_event
from tests.pickles import SYSTEM, assemble
from tests.weights import wrap_weights

NAME = "org/model"
CARD = ModelCard(
    licenses=("apache-2.0", "llama3.1", "other"),
    license_name='My "own" license',
    license_link="https://example.com/license?a=1#b",
    base_models=("google-bert/bert-base-uncased", "gpt2"),
    base_model_relation=BaseModelRelation.FINETUNE,
    library="transformers",
    pipeline_tag="text-generation",
)
FILES = {"config.json": b"{}", "nested/日本 %20+&'\"<.txt": b"text", "model.safetensors": wrap_weights(b"w" * 100)}
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def check(content: str | bytes) -> dict[str, Any]:
    text = content if isinstance(content, str) else content.decode()
    assert VALIDATOR.validate_str(text) is None
    bom: dict[str, Any] = json.loads(text)
    references = [bom["metadata"]["component"]["bom-ref"], *(file["bom-ref"] for file in bom["components"])]
    assert len(set(references)) == len(references)
    assert {subject for note in bom["annotations"] for subject in note["subjects"]} <= set(references)
    return bom


def import_bom(deployment: Deployment, **options: Any) -> dict[str, Any]:
    task = deployment.submit(NAME, **options)
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.DONE, ended.error
    return read_bom(deployment, ended.model_ids[0])


def read_bom(deployment: Deployment, model_id: str) -> dict[str, Any]:
    first, second = (deployment.catalog.read_bom(model_id).text for _ in range(2))
    assert first is not None
    assert first == second, "a repeated request returns the same document"
    return check(first)


def create_deployment(files: dict[str, bytes] = FILES, **options: Any) -> Deployment:
    return Deployment(InMemoryModelSource({NAME: {"main": files}}, cards={NAME: CARD}), **options)


def list_properties(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"].removeprefix("modelhaul:"): p["value"] for p in component["properties"]}


def test_model_of_the_hub_with_a_card() -> None:
    deployment = create_deployment()
    bom = import_bom(deployment)
    (model,) = deployment.tables.models.values()
    component, commit = bom["metadata"]["component"], model.resolved.commit
    assert (component["type"], component["group"], component["name"]) == ("machine-learning-model", "org", "model")
    assert PackageURL.from_string(component["purl"]).to_dict() == {
        "type": "huggingface", "namespace": "org", "name": "model", "version": commit, "qualifiers": None,
        "subpath": None,
    }  # fmt: skip
    licenses = [entry["license"] for entry in component["licenses"]]
    assert [entry.get("id") or entry["name"] for entry in licenses] == ["Apache-2.0", "llama3.1", 'My "own" license']
    assert {entry["acknowledgement"] for entry in licenses} == {"declared"}
    assert [ancestor["purl"] for ancestor in component["pedigree"]["ancestors"]] == [
        "pkg:huggingface/google-bert/bert-base-uncased",
        "pkg:huggingface/gpt2",
    ]
    assert component["modelCard"]["modelParameters"]["task"] == "text-generation"
    references = {entry["type"]: entry["url"] for entry in component["externalReferences"]}
    assert references["vcs"] == f"https://huggingface.co/org/model/tree/{commit}"
    assert references["distribution"] == f"s3://models-bucket/{model.resolved.prefix}"
    properties = list_properties(component)
    assert (properties["modelId"], properties["commit"], properties["library"]) == (
        model.model_id,
        commit,
        "transformers",
    )
    manifest = json.loads(deployment.read(manifest_key(model.model_id)))
    assert {file["name"]: file["hashes"][0]["content"] for file in bom["components"]} == {
        file["path"]: file["sha256"] for file in manifest["files"]
    }
    assert bom["compositions"] == [{"aggregate": "complete", "assemblies": ["model"]}]
    assert bom["annotations"] == []


def test_parts_of_a_model_are_incomplete() -> None:
    bom = import_bom(create_deployment(), selection=Selection(("*.json",)))
    assert bom["compositions"][0]["aggregate"] == "incomplete"
    assert [file["name"] for file in bom["components"]] == ["config.json"]


def test_model_of_github_or_of_other_servers() -> None:
    deployment = create_deployment()
    import_bom(deployment)
    (model,) = deployment.tables.models.values()
    manifest = json.loads(deployment.read(manifest_key(model.model_id)))
    urls = SourceUrls("https://hub.example:8443/hf", "https://git.example")
    purls = []
    for source, url in ((Source.HUGGINGFACE, urls.huggingface), (Source.GITHUB, urls.github)):
        resolved = replace(model.resolved, source=source, name="Owner/Repo")
        bom = check(build_bom(replace(model, resolved=resolved), manifest, urls, location="s3://bucket/key/"))
        purl = PackageURL.from_string(bom["metadata"]["component"]["purl"])
        assert purl.qualifiers == {"repository_url": url}
        purls.append(f"{purl.type}/{purl.namespace}/{purl.name}")
        bom = check(build_bom(replace(model, resolved=resolved), manifest, SOURCE_URLS, location="s3://bucket/key/"))
        assert PackageURL.from_string(bom["metadata"]["component"]["purl"]).qualifiers == {}
    assert purls == ["huggingface/Owner/Repo", "github/owner/repo"]


def test_model_of_an_archive_has_no_package_url() -> None:
    deployment = create_deployment()
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"w")}
    task = deployment.find_task(deployment.drop(zip_files(files)))
    deployment.run()
    bom = read_bom(deployment, deployment.find_task(task.id).model_ids[0])
    component = bom["metadata"]["component"]
    assert component.keys().isdisjoint({"purl", "licenses", "pedigree", "modelCard"})
    assert list_properties(component)["source"] == "LOCAL"


def test_findings_are_annotations_of_their_files() -> None:
    files = {**FILES, "evil.pkl": SYSTEM, "modeling.py": b"import os\n"}
    bom = import_bom(create_deployment(files, pickle_policy=PicklePolicy.WARN))
    texts = {(note["subjects"][0], note["text"]) for note in bom["annotations"]}
    assert any(subject == "file:evil.pkl" and text.startswith("high: pickle-import: ") for subject, text in texts)
    assert any(subject == "file:modeling.py" and text.startswith("medium: code: ") for subject, text in texts)
    assert any(subject == "model" for subject, _ in texts)
    verdicts = {file["name"]: list_properties(file).get("inspection:verdict") for file in bom["components"]}
    assert (verdicts["evil.pkl"], verdicts["model.safetensors"]) == ("unsafe", "clean")


def test_findings_of_a_long_path_are_not_repeated() -> None:
    """Reasons have at most 300 characters, which a path may fill."""
    deployment = create_deployment(
        {"d/" * 200 + "evil.pkl": SYSTEM + assemble("os", "popen")}, pickle_policy=PicklePolicy.WARN
    )
    bom = import_bom(deployment)
    assert len([note for note in bom["annotations"] if note["subjects"] == ["model"]]) == 1
    assert len([note for note in bom["annotations"] if note["text"].startswith("high: ")]) == 2


def test_files_that_were_not_inspected_have_no_verdict() -> None:
    bom = import_bom(create_deployment(pickle_policy=PicklePolicy.OFF))
    assert all("inspection:verdict" not in list_properties(file) for file in bom["components"])


def test_each_import_has_its_serial_number() -> None:
    deployment = create_deployment()
    first = import_bom(deployment)
    (model,) = deployment.tables.models.values()
    assert deployment.deleter.delete_model(model.model_id, lambda: 28)
    second = import_bom(deployment)
    assert first["serialNumber"] != second["serialNumber"]


def test_route_returns_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = create_deployment()
    import_bom(deployment)
    (model,) = deployment.tables.models.values()
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    event = read_event("read_bom")

    def call(model_id: str) -> Any:
        path = {"path": f"/models/{model_id}/bom", "pathParameters": {"model_id": model_id}}
        return call_api("read_catalog", {**event, **path})

    answer = call(model.model_id)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.cyclonedx+json; version=1.6"
    check(answer.text)
    missing = call("6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55")
    assert (missing.status, missing.body["type"]) == (404, "urn:modelhaul:problem:model-not-found")


@pytest.mark.parametrize(
    ("license_id", "expected"),
    [("apache-2.0", "Apache-2.0"), ("MIT", "MIT"), ("odbl", "ODbL-1.0"), ("gpl", None), ("llama3", None), ("", None)],
)
def test_licenses_of_the_hub_have_spdx_identifiers(license_id: str, expected: str | None) -> None:
    assert find_spdx_identifier(license_id) == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=30)
    | st.sampled_from(["apache-2.0", "a/b", "https://x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "license",
    "license_name",
    "license_link",
    "base_model",
    "base_model_relation",
    "library_name",
    "pipeline_tag",
)


@settings(max_examples=150, deadline=None)
@given(card=st.dictionaries(st.sampled_from(FIELDS), JSON), library=JSON, pipeline_tag=JSON, name=st.text(max_size=20))
def test_no_card_makes_an_invalid_document(
    card: dict[str, Any], library: Any, pipeline_tag: Any, name: str, published: tuple[Model, dict[str, Any]]
) -> None:
    model, manifest = published
    parsed = parse_card(SimpleNamespace(**card), library=library, pipeline_tag=pipeline_tag)
    resolved = replace(model.resolved, card=parsed)
    check(build_bom(replace(model, resolved=resolved), manifest, SOURCE_URLS, location="s3://bucket/key/"))
    if parsed is not None:
        shown = json.dumps(present_card(parsed))
        assert len(shown) < 10_000
        assert shown.isprintable()


@pytest.fixture(scope="module")
def published() -> tuple[Model, dict[str, Any]]:
    deployment = create_deployment()
    import_bom(deployment)
    (model,) = deployment.tables.models.values()
    return model, json.loads(deployment.read(manifest_key(model.model_id)))


def test_models_of_earlier_versions_have_one() -> None:
    deployment = create_deployment()
    import_bom(deployment)
    (model,) = deployment.tables.models.values()
    manifest = json.loads(deployment.read(manifest_key(model.model_id)))
    del manifest["gate"]["left_out"]
    first = check(build_bom(model, manifest, SOURCE_URLS, location="s3://bucket/key/"))
    assert first["compositions"] == [{"aggregate": "complete", "assemblies": ["model"]}]
    del manifest["gate"]
    second = check(build_bom(model, manifest, SOURCE_URLS, location="s3://bucket/key/"))
    assert "inspection:verdict" not in list_properties(second["metadata"]["component"])


@pytest.mark.parametrize(
    "link", ["https://x.example/a?b=%20c&d=/?#e/f?", "http://x.example:8080", "https://a_b.example/(c)/~d"]
)
def test_link_is_recorded(link: str, published: tuple[Model, dict[str, Any]]) -> None:
    card = parse_card(SimpleNamespace(license="other", license_link=link), library=None, pipeline_tag=None)
    model, manifest = published
    resolved = replace(model.resolved, card=card)
    bom = check(build_bom(replace(model, resolved=resolved), manifest, SOURCE_URLS, location="s3://bucket/key/"))
    assert bom["metadata"]["component"]["licenses"][0]["license"]["url"] == link


@pytest.mark.parametrize(
    "link",
    [
        "https://x.example/a b",
        "javascript:alert(1)",
        "LICENSE",
        "https://",
        "https://[x",
        # Not valid in a bill of materials.
        "https://x/%zz",
        "https://x/[a]",
        "https://x/#a#b",
        "https://x:port/",
        "https://x@y@z/",
    ],
)
def test_link_that_is_no_url_is_omitted(link: str) -> None:
    assert parse_card(SimpleNamespace(license_link=link), library=None, pipeline_tag=None) is None
