"""The import policy in the whole pipeline: what is denied when, what is recorded, and what happens in between."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from identify.vendor.licenses import LICENSES

from modelhaul.domain.audit import AuditAction, AuditEntry
from modelhaul.domain.callers import name_follow
from modelhaul.domain.errors import (
    ImportInProgressError,
    ModelExistsError,
    PolicyDeniedError,
    PolicyUnavailableError,
    StorageUnavailableError,
)
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.messages import CopyFiles, Message, PlanImport, PublishModels
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.policy_results import PolicyDecision
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.domain.selection import Selection
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.ports.missing_models import MissingModel, UpstreamRequest
from modelhaul.transfer.policy import TransferPolicy
from tests.archives.zipping import zip_files
from tests.fakes.deployment import MAX_OUTAGE, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.policy_store import InMemoryPolicyStore
from tests.pickles import PLAIN, SYSTEM, build_torch_zip
from tests.weights import wrap_weights

NAME = "org/model"
CACHED = 61  # seconds; the policy is kept for a minute
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}
PICKLED = {**MODEL, "pytorch_model.bin": build_torch_zip(PLAIN)}
CODE = {**MODEL, "modeling.py": b"import os\n"}
TEXTS = dict(LICENSES)
MIT, GPL = TEXTS["MIT"].encode(), TEXTS["GPL-3.0"].encode()

type Rule = dict[str, Any]


def deny(**when: Any) -> Rule:
    return {"effect": "deny", "when": when}


def allow(**when: Any) -> Rule:
    return {"effect": "allow", "when": when}


def warn(**when: Any) -> Rule:
    return {"effect": "warn", "when": when}


def deploy(
    *rules: Rule, files: dict[str, bytes] = MODEL, default: str = "allow", **options: Any
) -> tuple[Deployment, InMemoryPolicyStore, InMemoryModelSource]:
    source, store = InMemoryModelSource({NAME: {"main": dict(files)}}), InMemoryPolicyStore()
    store.write(*rules, default=default)
    return Deployment(source, policy_store=store, **options), store, source


def list_audit(deployment: Deployment, action: AuditAction) -> list[AuditEntry]:
    page = deployment.database.audit_reader.list_entries(limit=100)
    return [entry for entry in page.entries if entry.action is action]


def find_only(deployment: Deployment, task: Task) -> Model:
    (model,) = deployment.database.models.find_models(task.model_ids)
    return model


def place(directory: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{directory}/{path}": content for path, content in files.items()}


def zip_models(**models: dict[str, bytes]) -> bytes:
    files = {path: content for name, model in models.items() for path, content in place(name, model).items()}
    return zip_files(files, zipfile.ZIP_DEFLATED)


NOW = datetime.fromtimestamp(Deployment().clock.now, UTC)
# When the policy denies the model: at submission, planning, before publishing. None: the model is imported.
AT_SUBMISSION, AT_PLANNING, AT_PUBLISHING = "submission", "planning", "publishing"


@pytest.mark.parametrize(
    ("rules", "default", "changes", "denied"),
    [
        pytest.param([], "allow", {}, None, id="no rules"),
        pytest.param([], "deny", {}, AT_SUBMISSION, id="default"),
        pytest.param([allow(name=["org/*"])], "deny", {}, None, id="allowed owner"),
        pytest.param([allow(name=["other/*"])], "deny", {}, AT_SUBMISSION, id="other owner"),
        pytest.param([deny(source=["GITHUB"])], "allow", {}, None, id="other source"),
        pytest.param([deny(source=["HUGGINGFACE"])], "allow", {}, AT_SUBMISSION, id="source"),
        pytest.param([deny(name_not=["org/*"])], "allow", {}, None, id="name_not"),
        pytest.param([deny(license=["gpl-3.0"])], "allow", {"card": "gpl-3.0"}, AT_SUBMISSION, id="license of card"),
        pytest.param([deny(license=["gpl-3.0"])], "allow", {"card": "mit"}, None, id="other license of card"),
        pytest.param(
            [deny(license=["gpl-3.0"])], "allow", {"files": {**MODEL, "LICENSE": GPL}}, AT_PUBLISHING, id="license file"
        ),
        pytest.param(
            [deny(license=["gpl-3.0"])],
            "allow",
            {"card": "mit", "files": {**MODEL, "COPYING": GPL}},
            AT_PUBLISHING,
            id="license file besides the card",
        ),
        pytest.param(
            [deny(license_not=["mit"])], "allow", {"files": {**MODEL, "LICENSE": MIT}}, None, id="license_not, file"
        ),
        pytest.param([deny(license_not=["mit"])], "allow", {"card": "mit"}, None, id="license_not, card"),
        pytest.param([deny(license=["unknown"])], "allow", {}, AT_PUBLISHING, id="no license"),
        pytest.param(
            [deny(license=["unknown"])],
            "allow",
            {"files": {**MODEL, "LICENSE": b"Ask us."}},
            AT_PUBLISHING,
            id="other license text",
        ),
        pytest.param(
            [deny(license=["unknown"])],
            "allow",
            {"files": {**MODEL, "LICENSE": MIT, "LICENSE-WEIGHTS": b"Ask us."}},
            AT_PUBLISHING,
            id="other license text besides a known one",
        ),
        pytest.param(
            [deny(license=["unknown"])],
            "allow",
            {"card": "mit", "files": {**MODEL, "LICENSE": b"Ask us."}},
            None,
            id="other license text besides a card",
        ),
        pytest.param(
            [deny(license=["unknown"])],
            "allow",
            {"files": {**MODEL, "LICENSE": MIT + b" " * 200_000}},
            AT_PUBLISHING,
            id="license file too large",
        ),
        pytest.param([deny(gated=True)], "allow", {"gated": True}, AT_SUBMISSION, id="gated"),
        pytest.param([deny(gated=True)], "allow", {}, None, id="not gated"),
        pytest.param([deny(commit_younger_than_days=7)], "allow", {"age": 6.9}, AT_SUBMISSION, id="young commit"),
        pytest.param([deny(commit_younger_than_days=7)], "allow", {"age": 7.1}, None, id="old commit"),
        pytest.param([deny(commit_younger_than_days=7)], "allow", {}, AT_PUBLISHING, id="no date"),
        pytest.param([warn(commit_younger_than_days=7)], "allow", {}, None, id="no date, warning"),
        pytest.param([deny(size_above=1000)], "allow", {}, AT_PLANNING, id="size"),
        pytest.param([deny(size_above=100_000)], "allow", {}, None, id="small size"),
        pytest.param(
            [deny(format_not=["safetensors"])], "allow", {"files": PICKLED}, AT_PLANNING, id="not only safetensors"
        ),
        pytest.param([deny(format_not=["safetensors"])], "allow", {}, None, id="only safetensors"),
        pytest.param(
            [deny(format_not=["safetensors"])],
            "allow",
            {"files": {**MODEL, "weights.xyz": PLAIN}},
            AT_PUBLISHING,
            id="pickle with another name",
        ),
        pytest.param(
            [deny(format_not=["safetensors"])],
            "allow",
            {"files": {**MODEL, "training_args.bin": build_torch_zip(SYSTEM)}},
            None,
            id="training state that is left out",
        ),
        pytest.param(
            [deny(format=["torch-zip"])], "allow", {"files": PICKLED}, AT_PUBLISHING, id="format of the content"
        ),
        pytest.param([deny(finding=["code"])], "allow", {"files": CODE}, AT_PUBLISHING, id="finding"),
        pytest.param([deny(finding=["code"])], "allow", {}, None, id="no finding"),
        pytest.param([deny(verdict=["unscanned"])], "allow", {"files": CODE}, AT_PUBLISHING, id="verdict"),
        pytest.param(
            [allow(name=["org/*"], license=["mit"])],
            "deny",
            {"card": "gpl-3.0"},
            AT_PUBLISHING,
            id="a file may still name an allowed license",
        ),
        pytest.param(
            [deny(size_above=1000), allow(name=["org/*"])], "deny", {}, AT_PLANNING, id="the first rule decides"
        ),
        pytest.param([allow(name=["org/*"]), deny(size_above=1000)], "deny", {}, None, id="an exception"),
        pytest.param(
            [deny(finding=["code"])],
            "allow",
            {"pickle_policy": PicklePolicy.OFF},
            AT_PUBLISHING,
            id="finding without an inspection",
        ),
        pytest.param(
            [deny(format=["gguf"])],
            "allow",
            {"pickle_policy": PicklePolicy.OFF},
            AT_PUBLISHING,
            id="format without an inspection",
        ),
    ],
)
def test_the_policy_decides_as_soon_as_the_facts_are_known(
    rules: list[Rule], default: str, changes: dict[str, Any], denied: str | None
) -> None:
    options = {"pickle_policy": changes["pickle_policy"]} if "pickle_policy" in changes else {}
    deployment, _, source = deploy(*rules, default=default, files=changes.get("files", MODEL), **options)
    if "card" in changes:
        source.cards[NAME] = ModelCard(licenses=(changes["card"],))
    if changes.get("gated"):
        source.gated.add(NAME)
    if "age" in changes:
        source.commit_dates[NAME] = NOW - timedelta(days=changes["age"])
    if denied == AT_SUBMISSION:
        with pytest.raises(PolicyDeniedError) as error:
            deployment.submit(NAME)
        assert (error.value.retryable, error.value.type) == (False, "policy-denied")
        assert deployment.database.tasks.list_tasks(limit=10).tasks == ()
        (entry,) = list_audit(deployment, AuditAction.POLICY_DENIED)
        assert (entry.name, entry.source, entry.task_id) == (NAME, Source.HUGGINGFACE, None)
        return
    task = deployment.submit(NAME)
    stages = [task.stage]
    while messages := deployment.receive():
        for message in messages:
            deployment.deliver(message)
            stages.append(deployment.find_task(task.id).stage)
    task, model = deployment.find_task(task.id), find_only(deployment, task)
    if denied is None:
        assert (task.stage, model.status) == (Stage.DONE, ModelStatus.READY)
        assert model.policy is not None
        assert model.policy.decision is PolicyDecision.ALLOW
        assert len(model.policy.digest) == 64
        assert list_audit(deployment, AuditAction.POLICY_DENIED) == []
    else:
        assert (Stage.TRANSFERRING in stages) is (denied == AT_PUBLISHING)
        assert Stage.PUBLISHING not in stages
        assert task.error is not None
        assert (task.status, task.error.type, task.error.retryable) == (TaskStatus.FAILED, "policy-denied", False)
        assert model.error is not None
        assert (model.status, model.error.type) == (ModelStatus.FAILED, "policy-denied")
        assert deployment.store.keys == [], "neither visible nor staged"
        (entry,) = list_audit(deployment, AuditAction.POLICY_DENIED)
        assert (entry.task_id, entry.model_id) == (task.id, model.model_id)
    deployment.sweep_until_quiet()
    deployment.check_promises({} if denied else {model.resolved.prefix: changes.get("files", MODEL)} | _left_out(model))


def _left_out(model: Model) -> dict[str, dict[str, bytes]]:
    assert model.gate is not None
    return {model.resolved.prefix: dict(MODEL)} if model.gate.left_out else {}


def test_an_error_names_the_rule_its_reason_and_what_it_matches() -> None:
    rule = {"id": "no-gpl", "effect": "deny", "reason": "Legal does not permit it.", "when": {"license": ["gpl-*"]}}
    deployment, _, source = deploy(rule)
    source.cards[NAME] = ModelCard(licenses=("gpl-3.0",))
    commit = source.resolve(NAME, "main").commit
    with pytest.raises(PolicyDeniedError) as error:
        deployment.submit(NAME)
    assert error.value.detail == (
        f"The import policy denies {NAME} at commit {commit[:12]}. Rule no-gpl (license gpl-3.0): Legal does not "
        "permit it."
    )
    assert (error.value.rule_id, error.value.reason) == ("no-gpl", "Legal does not permit it.")
    (entry,) = list_audit(deployment, AuditAction.POLICY_DENIED)
    assert (entry.reason, entry.commit) == ("Legal does not permit it.", commit)
    assert entry.detail["rule"] == "no-gpl"
    assert entry.detail["matched"] == "license gpl-3.0"
    assert len(entry.detail["digest"]) == 64


def test_what_is_not_known_is_named() -> None:
    deployment, _, _ = deploy({**deny(commit_younger_than_days=7), "id": "soak"})
    task = deployment.submit(NAME)
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert "Rule soak: The policy cannot decide, because this is not known of the model: commit date." in error.detail


def test_findings_of_a_file_cannot_hide_others_from_the_policy() -> None:
    members = {f"{number:02}.pkl": SYSTEM for number in range(30)} | {"run.py": b"import os"}
    files = {**MODEL, "data.zip": zip_files(members, zipfile.ZIP_DEFLATED)}
    deployment, _, _ = deploy(deny(finding=["code"]), files=files, pickle_policy=PicklePolicy.WARN)
    task = deployment.submit(NAME)
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "policy-denied"


def test_a_selection_cannot_hide_a_license_file() -> None:
    files = {**MODEL, "LICENSE": GPL}
    for rules, is_denied in (([deny(license=["gpl-3.0"])], True), ([], False)):
        deployment, _, _ = deploy(*rules, files=files)
        task = deployment.submit(NAME, selection=Selection(allow_patterns=("*.safetensors",), ignore_patterns=("L*",)))
        deployment.run()
        ended = deployment.find_task(task.id)
        assert (ended.stage is Stage.FAILED) is is_denied
        published = {"LICENSE", "model.safetensors"} if not is_denied else set()
        prefix = find_only(deployment, task).resolved.prefix
        assert {key.removeprefix(prefix) for key in deployment.store.keys if key.startswith(prefix)} == published


@pytest.mark.parametrize("when", [{"license": ["gpl-*"]}, {"license_not": ["mit"]}, {"license": ["unknown"]}])
def test_a_card_with_omitted_licenses_hides_none(when: dict[str, Any]) -> None:
    deployment, _, source = deploy(deny(**when))
    source.cards[NAME] = ModelCard(licenses=("mit",), omits_licenses=True)
    try:
        task = deployment.submit(NAME)
    except PolicyDeniedError:
        return
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "policy-denied"


def test_only_warnings_that_cannot_be_checked_warn() -> None:
    rules = [
        {**allow(finding=["code"]), "id": "exception"},
        {**warn(finding=["code"]), "id": "code"},
        {**deny(name=["x"]), "id": "other"},
    ]
    deployment, _, _ = deploy(*rules, pickle_policy=PicklePolicy.OFF)
    task = deployment.submit(NAME)
    deployment.run()
    policy = find_only(deployment, task).policy
    assert policy is not None
    assert [warning.rule_id for warning in policy.warnings] == ["code"]


def test_training_state_counts_if_it_is_published() -> None:
    for content, stage in ((PLAIN, Stage.FAILED), (SYSTEM, Stage.DONE)):
        files = {**MODEL, "optimizer.pt": build_torch_zip(content)}
        deployment, _, _ = deploy(deny(format_not=["safetensors"]), files=files)
        task = deployment.submit(NAME)
        deployment.run()
        assert deployment.find_task(task.id).stage is stage


def test_warnings_are_recorded_and_the_model_is_imported() -> None:
    deployment, _, _ = deploy({**warn(finding=["code"]), "id": "code"}, warn(size_above=1), warn(size_above=10**9))
    deployment.source.models[NAME]["main"] = dict(CODE)  # type: ignore[attr-defined]
    task = deployment.submit(NAME)
    deployment.run()
    model = find_only(deployment, task)
    assert model.status is ModelStatus.READY
    assert model.policy is not None
    assert [warning.rule_id for warning in model.policy.warnings] == ["code", "rule-2"]
    assert model.policy.warnings[0].matched
    (entry,) = list_audit(deployment, AuditAction.POLICY_WARNED)
    assert (entry.task_id, entry.model_id, entry.detail["warnings"]) == (task.id, model.model_id, "code, rule-2")


def test_without_a_policy_nothing_is_read_or_recorded() -> None:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": MODEL}}))
    deployment.source.commit_dates[NAME] = NOW  # type: ignore[attr-defined]
    task = deployment.submit(NAME)
    deployment.run()
    model = find_only(deployment, task)
    assert (model.status, model.policy, model.resolved.committed_at) == (ModelStatus.READY, None, None)
    assert deployment.find_task(task.id).policy_results == {}


def test_the_date_of_a_commit_is_requested_only_if_a_rule_needs_it() -> None:
    deployment, store, source = deploy(deny(size_above=10**9))
    source.commit_dates[NAME] = NOW - timedelta(days=30)
    task = deployment.submit(NAME)
    assert find_only(deployment, task).resolved.committed_at is None
    deployment.run()
    store.write(deny(commit_younger_than_days=7))
    deployment.clock.now += CACHED
    source.models[NAME]["next"] = {**MODEL, "config.json": b'{"a": 1}'}
    task = deployment.submit(NAME, "next")
    assert find_only(deployment, task).resolved.committed_at == NOW - timedelta(days=30)
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE


def test_the_age_of_a_commit_is_that_at_the_submission() -> None:
    """A wait must not turn a decision."""
    deployment, store, source = deploy(allow(commit_younger_than_days=7), default="deny")
    source.commit_dates[NAME] = NOW - timedelta(days=6.99)
    task = deployment.submit(NAME)
    deployment.clock.now += 3 * 3600
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE
    assert store.reads > 1


def test_models_that_exist_or_are_imported_are_not_affected() -> None:
    deployment, store, _ = deploy()
    task = deployment.submit(NAME)
    store.write(default="deny")
    deployment.clock.now += CACHED
    with pytest.raises(ImportInProgressError):
        deployment.submit(NAME)
    store.write()
    deployment.clock.now += CACHED
    deployment.run()
    model = find_only(deployment, task)
    for is_down in (False, True):
        store.write(default="deny")
        store.is_down = is_down
        deployment.clock.now += CACHED
        with pytest.raises(ModelExistsError):
            deployment.submit(NAME)
    assert find_only(deployment, task) == model


def test_a_posted_archive_whose_models_exist_is_refused_as_such() -> None:
    deployment, store, _ = deploy()
    deployment.post(zip_models(a=MODEL))
    deployment.run()
    store.write(default="deny")
    deployment.clock.now += CACHED
    with pytest.raises(ModelExistsError):
        deployment.post(zip_models(a=MODEL))
    with pytest.raises(PolicyDeniedError):
        deployment.post(zip_models(b=MODEL))


def test_a_denied_submission_is_accepted_when_the_policy_allows_it() -> None:
    deployment, store, _ = deploy(default="deny")
    with pytest.raises(PolicyDeniedError):
        deployment.submit(NAME)
    store.write()
    with pytest.raises(PolicyDeniedError):
        deployment.submit(NAME)  # the document is kept for a minute
    deployment.clock.now += CACHED
    task = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE


def test_a_denied_import_can_be_repeated_when_the_policy_allows_it() -> None:
    deployment, store, _ = deploy(deny(license=["unknown"]))
    task = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.FAILED
    store.write()
    deployment.clock.now += CACHED
    again = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(again.id).stage is Stage.DONE
    model = find_only(deployment, again)
    assert (model.status, model.error) == (ModelStatus.READY, None)


# A step that stops before it, and what it does then.
def stop_at(kind: type[Message]) -> Callable[[Deployment], list[Message]]:
    def run(deployment: Deployment) -> list[Message]:
        """Deliver messages until one of this kind is received. Return those that were not delivered."""
        for _ in range(100):
            messages = deployment.receive()
            if any(isinstance(message, kind) for message in messages):
                return messages
            for message in messages:
                deployment.deliver(message)
        raise AssertionError(kind)

    return run


@pytest.mark.parametrize("kind", [PlanImport, PublishModels])
def test_an_import_waits_for_the_document_and_continues(kind: type[Message]) -> None:
    deployment, store, _ = deploy(warn(size_above=1))
    task = deployment.submit(NAME)
    messages = stop_at(kind)(deployment)
    store.is_down = True
    deployment.clock.now += CACHED
    for message in messages:
        deployment.deliver(message)
    waiting = deployment.find_task(task.id).waiting
    assert waiting is not None
    assert waiting.reason == "policy-unavailable"
    assert "s3://bucket/policy.json cannot be read" in waiting.detail
    assert deployment.find_task(task.id).status is TaskStatus.PENDING
    for _ in range(5):
        due = deployment.queue.next_due
        assert due is not None
        deployment.clock.now = due
        for message in deployment.receive():
            deployment.deliver(message)
    store.is_down = False
    deployment.run()
    model = find_only(deployment, task)
    assert model.status is ModelStatus.READY
    assert model.policy is not None
    assert model.policy.warnings


def test_a_source_gets_no_requests_while_the_document_cannot_be_read() -> None:
    deployment, store, source = deploy()
    deployment.submit(NAME)
    store.is_down = True
    deployment.clock.now += CACHED
    listed: list[str] = []
    source.on_list = lambda: listed.append(NAME)
    for message in deployment.receive():
        deployment.deliver(message)
    assert listed == []


@pytest.mark.parametrize("content", [b"{", b'{"version": 2}', b'{"version": 1, "default": "maybe"}'])
@pytest.mark.parametrize("kind", [PlanImport, PublishModels])
def test_an_import_without_a_usable_document_fails_after_the_outage_hours(kind: type[Message], content: bytes) -> None:
    deployment, store, _ = deploy()
    task = deployment.submit(NAME)
    messages = stop_at(kind)(deployment)
    store.content = content
    deployment.clock.now += CACHED
    began = deployment.clock.now
    for message in messages:
        deployment.deliver(message)
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert (error.type, error.retryable) == ("policy-unavailable", True)
    assert "could not be read for 6." in error.detail
    assert error.remedy is not None
    assert deployment.clock.now - began == pytest.approx(MAX_OUTAGE, rel=0.1)
    deployment.sweep_until_quiet()
    deployment.check_promises({})


def test_a_submission_without_the_document_is_refused() -> None:
    deployment, store, _ = deploy()
    store.is_down = True
    with pytest.raises(PolicyUnavailableError):
        deployment.submit(NAME)
    with pytest.raises(PolicyUnavailableError):
        deployment.post(zip_models(a=MODEL))
    with pytest.raises(PolicyUnavailableError):
        deployment.archive_submitter.open_upload("a.zip", 1000, None)
    assert deployment.database.tasks.list_tasks(limit=10).tasks == ()
    assert deployment.archives.keys == []


def test_a_dropped_archive_waits_for_the_document() -> None:
    deployment, store, _ = deploy()
    store.is_down = True
    task_id = deployment.drop(zip_models(a=MODEL))
    for message in deployment.receive():
        deployment.deliver(message)
    waiting = deployment.find_task(task_id).waiting
    assert waiting is not None
    assert waiting.reason == "policy-unavailable"
    store.is_down = False
    deployment.run()
    assert deployment.find_task(task_id).stage is Stage.DONE


def test_a_denial_that_cannot_be_recorded_in_the_audit_is_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the submission the request fails; a step is retried. In no case is something published."""
    deployment, store, _ = deploy(default="deny")

    def refuse(_: AuditEntry) -> None:
        raise StorageUnavailableError("DynamoDB request failed (InternalServerError).")

    with monkeypatch.context() as patch:
        patch.setattr(deployment.database.audit, "record", refuse)
        with pytest.raises(StorageUnavailableError):
            deployment.submit(NAME)
    store.write(warn(size_above=1))
    deployment.clock.now += CACHED
    task = deployment.submit(NAME)
    messages = stop_at(PublishModels)(deployment)
    with monkeypatch.context() as patch:
        patch.setattr(deployment.database.audit, "record", refuse)
        for message in messages:
            deployment.deliver(message)
        assert deployment.find_task(task.id).stage is Stage.VERIFIED
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE
    assert len(list_audit(deployment, AuditAction.POLICY_WARNED)) == 1


@pytest.mark.parametrize("step", [PlanImport, PublishModels])
@pytest.mark.parametrize("duplicate", [False, True])
def test_a_policy_that_changes_after_the_submission_applies(step: type[Message], duplicate: bool) -> None:
    deployment, store, _ = deploy()
    task = deployment.submit(NAME)
    messages = stop_at(step)(deployment)
    store.write({**deny(), "id": "stop"})
    deployment.clock.now += CACHED
    for message in messages:
        for _ in range(1 + duplicate):
            deployment.deliver(message)
    deployment.run()
    task = deployment.find_task(task.id)
    assert task.error is not None
    assert (task.stage, task.error.type) == (Stage.FAILED, "policy-denied")
    assert len(list_audit(deployment, AuditAction.POLICY_DENIED)) == 1
    deployment.sweep_until_quiet()
    deployment.check_promises({})


MANY_COPIES = TransferPolicy(small_file=1, copy_groups=1)


@pytest.mark.parametrize("new_default", ["deny", "allow"])
@pytest.mark.parametrize("first_default", ["deny", "allow"])
def test_the_final_decision_is_made_once(first_default: str, new_default: str) -> None:
    """The policy changes while other functions copy files, and the last function publishes."""
    deployment, store, source = deploy(policy=MANY_COPIES)
    task = deployment.submit(NAME)
    messages = stop_at(PublishModels)(deployment)
    store.write(default=first_default)
    deployment.clock.now += CACHED
    for message in messages:
        deployment.deliver(message)
    decided = deployment.find_task(task.id)
    assert decided.policy_results
    copies = deployment.receive()
    assert any(isinstance(message, CopyFiles) for message in copies) is (first_default == "allow")
    store.write(default=new_default)
    store.is_down = new_default == "allow"  # the document is not needed any more
    deployment.clock.now += CACHED
    for message in [*messages, *copies, *messages]:
        deployment.deliver(message)
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.policy_results == decided.policy_results
    assert ended.stage is (Stage.DONE if first_default == "allow" else Stage.FAILED)
    deployment.sweep_until_quiet()
    deployment.check_promises({source.prefix(NAME): MODEL} if first_default == "allow" else {})


@pytest.mark.parametrize("winner", ["deny", "allow"])
def test_two_functions_with_different_policies_follow_one_decision(
    winner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a function decides, a function that has read a different document decides first."""
    deployment, store, source = deploy()
    task = deployment.submit(NAME)
    messages = stop_at(PublishModels)(deployment)
    loser = "allow" if winner == "deny" else "deny"
    tasks = deployment.database_in_use.tasks
    record = tasks.record_policy

    def record_later(task_id: str, results: Any) -> Any:
        other = {
            model_id: replace(result, decision=PolicyDecision(winner), reason="Other.", digest="other")
            for model_id, result in results.items()
        }
        record(task_id, other)
        return record(task_id, results)

    monkeypatch.setattr(tasks, "record_policy", record_later)
    store.write(default=loser)
    deployment.clock.now += CACHED
    for message in messages:
        deployment.deliver(message)
    deployment.run()
    ended = deployment.find_task(task.id)
    (result,) = ended.policy_results.values()
    assert (result.decision, result.digest) == (PolicyDecision(winner), "other")
    assert ended.stage is (Stage.DONE if winner == "allow" else Stage.FAILED)
    entries = list_audit(deployment, AuditAction.POLICY_DENIED)
    assert [entry.detail["digest"] for entry in entries] == (["other"] if winner == "deny" else [])
    deployment.check_promises({source.prefix(NAME): MODEL} if winner == "allow" else {})


def test_a_task_that_is_cancelled_while_the_policy_decides_publishes_nothing() -> None:
    deployment, store, _ = deploy()
    task = deployment.submit(NAME)
    messages = stop_at(PublishModels)(deployment)
    deployment.clock.now += CACHED
    store.on_read = lambda: deployment.finisher.cancel(task.id)
    for message in messages:
        deployment.deliver(message)
    store.on_read = lambda: None
    deployment.run()
    ended = deployment.find_task(task.id)
    assert (ended.stage, ended.policy_results) == (Stage.CANCELLED, {})
    deployment.sweep_until_quiet()
    deployment.check_promises({})


def test_each_model_of_an_archive_has_its_own_decision() -> None:
    deployment, store, _ = deploy(
        {**deny(name=["bad"]), "id": "named"},
        {**deny(finding=["code"]), "id": "code"},
        {**warn(license=["mit"]), "id": "mit"},
    )
    archive = zip_models(bad=MODEL, code=CODE, good=MODEL, mit={**MODEL, "LICENSE": MIT}, unsafe=_make_unsafe())
    task = deployment.post(archive)
    deployment.run()
    task = deployment.find_task(task.id)
    assert task.stage is Stage.DONE
    models = {m.resolved.name: m for m in deployment.database.models.find_models(task.model_ids)}
    statuses = {name: model.status is ModelStatus.READY for name, model in models.items()}
    assert statuses == {"bad": False, "code": False, "good": True, "mit": True, "unsafe": False}
    errors = {name: model.error.type for name, model in models.items() if model.error}
    assert errors == {"bad": "policy-denied", "code": "policy-denied", "unsafe": "unsafe-model"}
    warned = {name: [w.rule_id for w in m.policy.warnings] for name, m in models.items() if m.policy}
    assert warned == {"good": [], "mit": ["mit"]}
    denials = {entry.name: entry.detail["rule"] for entry in list_audit(deployment, AuditAction.POLICY_DENIED)}
    assert denials == {"bad": "named", "code": "code"}
    assert store.reads
    deployment.sweep_until_quiet()
    deployment.check_promises(
        {models["good"].resolved.prefix: MODEL, models["mit"].resolved.prefix: {**MODEL, "LICENSE": MIT}}
    )


def _make_unsafe() -> dict[str, bytes]:
    return {**MODEL, "pytorch_model.bin": build_torch_zip(SYSTEM)}


def test_an_archive_is_denied_at_once_only_if_all_its_models_are() -> None:
    deployment, _, _ = deploy(deny(name=["a", "b"]))
    with pytest.raises(PolicyDeniedError) as error:
        deployment.post(zip_models(a=MODEL, b=MODEL))
    assert "denies a. Rule rule-1 (name a): A reason. The import policy denies b." in error.value.detail
    assert deployment.archives.keys == []
    assert {entry.name for entry in list_audit(deployment, AuditAction.POLICY_DENIED)} == {"a", "b"}
    task = deployment.post(zip_models(a=MODEL, c=MODEL))
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE


@pytest.mark.parametrize("drop", [False, True])
def test_an_archive_whose_models_are_all_denied_fails(drop: bool) -> None:
    deployment, _, _ = deploy(deny(size_above=1) if not drop else deny(name=["a"]))
    archive = zip_models(a=MODEL)
    task_id = deployment.drop(archive) if drop else deployment.post(archive).id
    deployment.run()
    task = deployment.find_task(task_id)
    assert task.error is not None
    assert (task.stage, task.error.type) == (Stage.FAILED, "policy-denied")
    assert task.model_ids == (() if drop else task.model_ids)
    if drop:
        assert deployment.archives.outcomes["outcomes/incoming/archive.zip.json"]["error"]["type"] == "policy-denied"
    deployment.sweep_until_quiet()
    deployment.check_promises({})


def test_uploads_are_denied_before_they_start_if_no_archive_can_be_allowed() -> None:
    deployment, store, _ = deploy(allow(source=["HUGGINGFACE"]), default="deny")
    with pytest.raises(PolicyDeniedError, match="denies this archive"):
        deployment.archive_submitter.open_upload("a.zip", 1000, None)
    store.write(deny(name=["a"]))
    deployment.clock.now += CACHED
    task, _ = deployment.archive_submitter.open_upload("a.zip", 1000, None)
    assert task.stage is Stage.UPLOADING


def test_models_of_archives_have_no_commit_and_are_not_gated() -> None:
    deployment, _, _ = deploy(deny(commit_younger_than_days=7), deny(gated=True))
    task = deployment.post(zip_models(a=MODEL))
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.DONE


READ_KEY = "read-key:0123456789abcdef"


def test_the_audit_has_one_entry_a_day_for_the_denials_of_a_follow() -> None:
    deployment, _, _ = deploy(deny(name=["org/*"]))
    for hours in (0, 1, 1, 24):
        deployment.clock.now += hours * 3600
        with pytest.raises(PolicyDeniedError):
            deployment.submitter.submit(Source.HUGGINGFACE, NAME, "main", submitted_by=name_follow("f1"))
    assert [entry.actor for entry in list_audit(deployment, AuditAction.POLICY_DENIED)] == ["follow:f1"] * 2


class NoPublicHub(InMemoryModelSource):
    def describe_file(self, *_: object) -> None:
        raise AssertionError

    def read_document(self, *_: object) -> None:
        raise AssertionError


def test_a_hub_client_gets_the_denial_and_the_audit_one_entry_a_day() -> None:
    deployment, _, source = deploy({**deny(name=["org/*"]), "id": "no-org", "reason": "Not reviewed."})
    importer = MissingModelImporter(deployment.submitter, deployment.database.models, NoPublicHub(), deployment.clock)
    for _ in range(3):
        deployment.clock.now += 120
        result = importer.request_import(NAME, "main", names=ALL_NAMES, submitted_by=READ_KEY)
        assert result.error is not None
        assert (result.error.type, result.error.retryable, result.task_id) == ("policy-denied", False, None)
        assert "Rule no-org (name org/model): Not reviewed." in result.error.detail
    (entry,) = list_audit(deployment, AuditAction.POLICY_DENIED)
    assert (entry.actor, entry.name, entry.commit) == (READ_KEY, NAME, source.resolve(NAME, "main").commit)
    deployment.clock.now += 86_400
    importer.request_import(NAME, "main", names=ALL_NAMES, submitted_by=READ_KEY)
    assert len(list_audit(deployment, AuditAction.POLICY_DENIED)) == 2


class PublicHub(InMemoryModelSource):
    def describe_file(self, *_: object) -> None:
        return None

    def read_document(self, *_: object) -> None:
        raise AssertionError


def test_clients_are_no_longer_redirected_when_the_policy_changes() -> None:
    deployment, store, source = deploy()
    hub = PublicHub(source.models)
    importer = MissingModelImporter(deployment.submitter, deployment.database.models, hub, deployment.clock)
    wanted = UpstreamRequest("content")
    first = importer.request_import(NAME, "main", names=ALL_NAMES, upstream=wanted, submitted_by=READ_KEY)
    assert first.upstream is not None
    (model,) = deployment.database.models.find_models(deployment.find_task(first.task_id or "").model_ids)

    def repeat() -> MissingModel:
        deployment.clock.now += CACHED
        return importer.request_import(
            NAME, "main", names=ALL_NAMES, model_id=model.model_id, upstream=wanted, submitted_by=READ_KEY
        )

    assert repeat() == first
    store.write(deny(name=["org/*"]))
    assert (repeat().upstream, repeat().error) == (None, None)
    store.write(deny(size_above=1))
    assert repeat().upstream is None, "the policy may still deny it"
    store.content = b"invalid"
    error = repeat().error
    assert error is not None
    assert error.type == "policy-unavailable"


@pytest.mark.parametrize(
    ("rules", "may_redirect"), [([], True), ([warn(size_above=1)], True), ([deny(size_above=10**9)], False)]
)
def test_clients_are_redirected_only_if_the_policy_certainly_allows_the_model(
    rules: list[Rule], may_redirect: bool
) -> None:
    """Else they would read what the policy denies in the next minute."""
    deployment, _, _ = deploy(*rules)
    importer = MissingModelImporter(deployment.submitter, deployment.database.models, NoPublicHub(), deployment.clock)
    task_id = importer.request_import(NAME, "main", names=ALL_NAMES, submitted_by=READ_KEY).task_id
    assert task_id is not None
    assert find_only(deployment, deployment.find_task(task_id)).may_redirect is may_redirect
