"""Each function can build all that it uses from the variables that the template gives it, and from no others."""

import os
from datetime import UTC, datetime
from functools import _lru_cache_wrapper

import pytest

from modelhaul import wiring
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.archives.entries import ArchiveLimits
from modelhaul.archives.source import ArchiveSource
from modelhaul.domain.archives import Archive
from modelhaul.domain.errors import CredentialsRefusedError
from modelhaul.domain.models import Source
from modelhaul.domain.required_files import RequiredFiles
from modelhaul.domain.tasks import Task
from modelhaul.settings import GitHubSettings, HuggingFaceSettings, ModelSettings
from modelhaul.wiring import adapters, follows, hub, misses, retention, sources, steps
from modelhaul_sources.github import GitHubSource
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.template.transformed import read_template

BUILT = {
    "submit_huggingface": ["create_submitter", "create_response_store"],
    "submit_github": ["create_submitter", "create_response_store"],
    "submit_local": ["create_archive_submitter", "create_response_store"],
    "accept_archive": ["create_arrival_recorder", "create_acceptor", "create_runner"],
    "read_catalog": ["create_tasks", "create_models", "create_catalog", "create_usage_reader"],
    "cancel_task": ["create_finisher"],
    "render_widget": ["create_console_reader"],
    "cancel_from_console": ["create_finisher"],
    "delete_model": ["create_deleter"],
    "manage_pins": ["create_pinner"],
    "read_retention": ["create_retention_planner"],
    "apply_retention": ["create_retention_runner"],
    "sign_model": ["create_published_signer"],
    "check_policy": ["create_policy_reader", "create_policy_tester", "create_response_store"],
    "plan_import": ["create_planner", "create_runner"],
    "transfer_files": ["create_transferrer", "create_joiner", "create_runner"],
    "publish_models": ["create_publisher", "create_copy_step", "create_runner"],
    "record_failure": ["create_runner", "create_arrival_recorder"],
    "sweep_stale": ["create_sweeper", "create_check_starter"],
    "manage_follows": ["create_follower", "create_models"],
    "check_follows": ["create_follow_checker"],
    "publish_ends": ["create_end_publisher"],
    "publish_audit": ["create_entry_publisher"],
    "read_audit": ["create_audit_reader"],
    "manage_keys": ["create_read_keys"],
    "authorize_hub": ["create_read_keys", "create_metrics"],
    "read_hub": ["create_hub_reader", "create_missing_models", "create_metrics"],
    "import_missing": ["create_missing_importer"],
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_TABLE", "_URL", "_BUCKET", "_HOSTS")) or name.startswith(
            ("AWS_", "HUGGINGFACE", "GITHUB_", "LOCAL_", "POLICY_", "SIGNING_", "STORAGE_")
        ):
            monkeypatch.delenv(name)
    for module in (adapters, follows, hub, misses, retention, sources, steps):
        for built in vars(module).values():
            if isinstance(built, _lru_cache_wrapper):
                built.cache_clear()


def set_variables(monkeypatch: pytest.MonkeyPatch, name: str, **values: str) -> None:
    """As the template has them, with any text for what only a deployment knows; and what Lambda sets itself."""
    logical = "".join(word.capitalize() for word in name.split("_")) + "Function"
    template = read_template()
    functions = (template["Globals"]["Function"], template["Resources"][logical]["Properties"])
    variables = [name for function in functions for name in function["Environment"]["Variables"]]
    known = {
        "LOCAL_MODE": "false",
        "HUGGINGFACE_ENDPOINT": "https://huggingface.co",
        "GITHUB_API_URL": "https://api.github.com",
        "GITHUB_URL": "https://github.com",
        "GITHUB_RAW_URL": "https://raw.githubusercontent.com",
        "ALLOWED_HOSTS": "a.example, b.example",
        "ARCHIVE_MAX_ENTRIES": "10",
        "ARCHIVE_MAX_ENTRY_BYTES": "1000",
        "ARCHIVE_MAX_TOTAL_BYTES": "2000",
        "ARCHIVE_MAX_RATIO": "100",
        "REQUIRED_FILES": "strict",
        "POLICY_LOCATION": "s3://policies/policy.json",
        "PICKLE_POLICY": "block",
        "HUB_ON_MISS": "IMPORT",
        "SOURCE_OUTAGE_HOURS": "6",
        "AUDIT_RETENTION_DAYS": "30",
        "STORAGE_QUOTA_GB": "0.5",
        "SIGNING_KEY_ARN": "arn:aws:kms:eu-west-1:123456789012:key/1a2b3c4d",
    }
    for variable in variables:
        monkeypatch.setenv(variable, values.get(variable, known.get(variable, f"the-{variable.lower()}")))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.parametrize(("function", "names"), BUILT.items(), ids=BUILT)
def test_a_function_can_build_what_it_uses(monkeypatch: pytest.MonkeyPatch, function: str, names: list[str]) -> None:
    set_variables(monkeypatch, function)
    for name in names:
        assert getattr(wiring, name)() is getattr(wiring, name)(), "and keeps it"


@pytest.mark.parametrize("function", ["submit_huggingface", "plan_import", "transfer_files"])
def test_those_that_reach_the_hub_can_open_it(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    set_variables(monkeypatch, function, HUGGINGFACE_TOKEN_SECRET="")
    assert isinstance(wiring.open_resolver(Source.HUGGINGFACE), HuggingFaceSource)
    assert HuggingFaceSettings.read().allowed_hosts == ("a.example", "b.example")


def test_the_token_comes_from_secrets_manager_each_time_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Secrets:
        def read_secret(self, secret_id: str) -> str:
            asked.append(secret_id)
            raise CredentialsRefusedError("not there")

    set_variables(monkeypatch, "submit_huggingface", HUGGINGFACE_TOKEN_SECRET="arn:secret")
    monkeypatch.setattr(sources, "create_secrets", Secrets)
    source = wiring.open_resolver(Source.HUGGINGFACE)
    assert asked == [], "not before it is needed"
    with pytest.raises(CredentialsRefusedError):
        source.resolve("org/model", "main")
    assert asked == ["arn:secret"]


def test_the_store_is_the_configured_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, "transfer_files")
    store = wiring.create_store()
    assert isinstance(store, S3ObjectStore)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, "transfer_files")
    monkeypatch.delenv("MODELS_TABLE")
    with pytest.raises(ValueError, match="MODELS_TABLE") as caught:
        ModelSettings.read()
    assert "secret" not in str(caught.value), "the environment holds credentials"


def test_names_of_archives_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, "plan_import")
    with pytest.raises(ValueError, match="LOCAL"):
        wiring.open_resolver(Source.LOCAL)


@pytest.mark.parametrize("function", ["submit_github", "plan_import", "transfer_files"])
def test_those_that_reach_github_can_open_it(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    set_variables(monkeypatch, function)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    source = wiring.open_source(Task("id", Source.GITHUB, "o/r@main", (), moment, moment))
    assert isinstance(source, GitHubSource)
    assert isinstance(wiring.open_resolver(Source.GITHUB), GitHubSource)
    assert GitHubSettings.read().github_raw_url == "https://raw.githubusercontent.com"


@pytest.mark.parametrize("function", ["plan_import", "transfer_files"])
def test_those_that_read_archives_have_the_limits(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    set_variables(monkeypatch, function)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    archive = Archive("incoming/a.zip", "a.zip", None, 100, "etag")
    source = wiring.open_source(Task("id", Source.LOCAL, "a.zip", (), moment, moment, archive=archive))
    assert isinstance(source, ArchiveSource)
    assert source.limits == ArchiveLimits(max_entries=10, max_entry_bytes=1000, max_total_bytes=2000, max_ratio=100)
    assert wiring.read_archive_rules().required_files is RequiredFiles.STRICT


@pytest.mark.parametrize(
    ("gigabytes", "limit"), [("0.5", 500_000_000), ("1E3", 10**12), ("0.000001", 1000), ("2000000", 2 * 10**15)]
)
def test_the_quota_is_in_decimal_gigabytes(monkeypatch: pytest.MonkeyPatch, gigabytes: str, limit: int) -> None:
    set_variables(monkeypatch, "plan_import", STORAGE_QUOTA_GB=gigabytes)
    quota = wiring.create_quota()
    assert quota is not None
    assert quota.limit == limit


@pytest.mark.parametrize("gigabytes", ["0", "0.0"])
def test_without_a_quota_nothing_is_built_for_it(monkeypatch: pytest.MonkeyPatch, gigabytes: str) -> None:
    set_variables(monkeypatch, "submit_huggingface", STORAGE_QUOTA_GB=gigabytes, HUGGINGFACE_TOKEN_SECRET="")
    assert wiring.create_quota() is None
    assert wiring.create_submitter().quota is None
