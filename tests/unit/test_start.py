"""What a function loads and builds while Lambda starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.template.functions import LAYERS, Function, list_functions
from tests.template.transformed import ROOT, read_template

# Each function is started in a new interpreter, once for all tests.
pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import handler
from modelhaul import wiring
built = [name for name, made in vars(wiring).items() if hasattr(made, "cache_info") and made.cache_info().currsize]
print(json.dumps({"modules": list(sys.modules), "built": built}))
"""
BUILT = {
    "submit_huggingface": {"create_submitter", "load_hub_client"},
    "submit_github": {"create_submitter", "open_github_resolver"},
    "submit_local": {"create_archive_submitter"},
    "accept_archive": {"create_arrival_recorder", "create_acceptor", "create_runner"},
    "read_catalog": {"create_tasks", "create_models"},
    "cancel_task": {"create_finisher"},
    "render_widget": {"create_console_reader"},
    "cancel_from_console": {"create_finisher"},
    "delete_model": {"create_deleter"},
    "manage_pins": {"create_pinner"},
    "read_retention": {"create_retention_planner"},
    "apply_retention": {"create_retention_runner"},
    "sign_model": {"create_published_signer"},
    "read_docs": set(),
    "plan_import": {"create_planner", "create_runner"},
    "transfer_files": {"create_transferrer", "create_joiner", "create_runner"},
    "publish_models": {"create_publisher", "create_copy_step", "create_runner"},
    "record_failure": {"create_runner"},
    "sweep_stale": {"create_sweeper"},
    "publish_ends": {"create_end_publisher"},
    "manage_keys": {"create_read_keys"},
    "authorize_hub": {"create_read_keys"},
    "read_hub": {"create_hub_reader"},
    "import_missing": {"create_missing_importer", "load_hub_client"},
}
ENGINE = {
    "modelhaul.imports.join",
    "modelhaul.imports.transfer",
    *(
        f"modelhaul.transfer.{module}"
        for module in ("engine", "mover", "segments", "window", "ranges", "small_files", "large_files")
    ),
}
WORK = {
    *ENGINE,
    "modelhaul.imports.publish",
    "modelhaul.inspection.gate",
    "modelhaul.inspection.pickles.streams",
}
# isal inflates archives and computes their CRC-32, and that of the parts that are uploaded.
INFLATE = {"transfer_files", "submit_local", "accept_archive", "publish_models"}
QUEUES = {"modelhaul.entrypoints.workers", "aws_lambda_powertools.utilities.batch"}
ARCHIVES = {"modelhaul.archives.directory", "modelhaul.archives.reader", "modelhaul.archives.inflating"}
HUB = {"huggingface_hub.hf_api"}
SOURCES = {*HUB, "modelhaul_sources", "requests"}
NOWHERE = {"boto3", "s3transfer", "aws_xray_sdk", "hf_xet"}
RESOLVER = {"aws_lambda_powertools.event_handler"}
REQUEST_LACKS = {
    "submit_huggingface": {*ARCHIVES, "modelhaul.adapters.s3_client", "modelhaul_sources.github"},
    "submit_github": {*ARCHIVES, *HUB, "modelhaul.adapters.s3_client"},
    "submit_local": SOURCES,
    "read_catalog": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs"},
    "cancel_task": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs"},
    "render_widget": {*SOURCES, *ARCHIVES, *RESOLVER, "modelhaul.adapters.sqs", "modelhaul.adapters.s3_client"},
    "cancel_from_console": {*SOURCES, *ARCHIVES, *RESOLVER, "modelhaul.adapters.sqs"},
    "delete_model": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs"},
    "manage_pins": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs", "modelhaul.adapters.s3_client"},
    "read_retention": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs", "modelhaul.adapters.s3_client"},
    "sign_model": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs", "cryptography"},
    "read_docs": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs", "modelhaul.adapters.dynamodb"},
    "manage_keys": {*SOURCES, *ARCHIVES, "modelhaul.adapters.sqs", "modelhaul.adapters.s3_client"},
    "authorize_hub": {*SOURCES, *ARCHIVES, *RESOLVER, "modelhaul.adapters.sqs", "modelhaul.adapters.s3_client"},
    "read_hub": {*SOURCES, *ARCHIVES, *RESOLVER, "modelhaul.adapters.sqs"},
    "import_missing": {*ARCHIVES, *RESOLVER, "modelhaul.adapters.s3_client", "modelhaul_sources.github"},
}
"""Modules that the functions behind an API do not load, and those that these functions wait for."""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    layers = {name: ROOT / "layers" / folder for name, folder in LAYERS.items()}
    found = list_functions(read_template(), layers, tmp_path_factory.mktemp("functions"), "http://127.0.0.1:9")
    return {function.name: function for function in found}


@cache
def start(folders: tuple[Path, ...], settings: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """A fresh interpreter's modules, and the parts that are built, once the handler is imported as Lambda does."""
    aws = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **dict(settings),
            **aws,
            "AWS_LAMBDA_FUNCTION_NAME": "function",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(child.stdout)
    return found


def start_function(function: Function) -> dict[str, list[str]]:
    return start(tuple(function.folders), tuple(sorted(function.environment.items())))


def test_every_function_is_looked_at(functions: dict[str, Function]) -> None:
    assert set(functions) == set(BUILT)
    waiting = {"authorize_hub", "import_missing", "render_widget", "cancel_from_console"}
    answering = {name for name, function in functions.items() if function.answers_requests}
    assert answering | waiting == set(REQUEST_LACKS)


@pytest.mark.parametrize("name", BUILT)
def test_all_that_a_request_needs_is_built_before_it_comes(name: str, functions: dict[str, Function]) -> None:
    assert set(start_function(functions[name])["built"]) >= BUILT[name]


@pytest.mark.parametrize("name", BUILT)
def test_no_function_loads_what_none_needs(name: str, functions: dict[str, Function]) -> None:
    check_absent(NOWHERE, start_function(functions[name])["modules"])


@pytest.mark.parametrize("name", sorted(BUILT.keys() - {"transfer_files"}))
def test_functions_that_move_no_files_do_not_load_the_engine(name: str, functions: dict[str, Function]) -> None:
    check_absent(ENGINE | (set() if name in INFLATE else {"isal"}), start_function(functions[name])["modules"])


@pytest.mark.parametrize("name", REQUEST_LACKS)
def test_functions_behind_the_api_load_nothing_of_the_work(name: str, functions: dict[str, Function]) -> None:
    check_absent(WORK | QUEUES | REQUEST_LACKS[name], start_function(functions[name])["modules"])


def check_absent(unwanted: set[str], modules: Collection[str]) -> None:
    assert not set(unwanted) & set(modules)
    for name in unwanted - {"aws_xray_sdk", "hf_xet"}:
        assert find_spec(name) is not None, f"{name} is no module"
