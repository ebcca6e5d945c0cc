"""The API's document and page on the deployed stack: in a real browser, and against all that the API answers."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.stack import LOCAL
from tests.browsers import DocumentationPage, open_browser
from tests.stack.conftest import Stack, wait_until
from tests.stack.test_import_archive import SMALL, make_archive, post
from tests.weights import wrap_weights

# Content of its own: generated requests may pin the model, which then stays, and later imports reuse its content.
FILES = {**SMALL, "model.safetensors": wrap_weights(b"documentation" * 30_000)}

pytestmark = pytest.mark.stack

ARTIFACTS = LOCAL / "artifacts"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "use_after_free",
    "ensure_resource_availability",
)


@pytest.fixture
def page(stack: Stack, tmp_path: Path) -> Iterator[DocumentationPage]:
    with open_browser(tmp_path) as browser:
        page = DocumentationPage(browser)
        # Another origin than that of the presigned URLs.
        page.open(f"{stack.state.api_url.replace('127.0.0.1', 'localhost')}/docs", stack.state.api_key)
        yield page


@pytest.mark.timeout(300)
def test_the_page_is_used_in_a_browser(stack: Stack, page: DocumentationPage) -> None:
    page.try_out("Tasks-list_tasks")
    status, response = page.execute("Tasks-list_tasks")
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.browser.save_screenshot(str(ARTIFACTS / "docs.png"))
    assert (status, page.list_errors()) == (200, []), response


@pytest.mark.timeout(300)
def test_the_page_downloads_a_file_from_the_bucket(stack: Stack, page: DocumentationPage, tmp_path: Path) -> None:
    answer = post(stack, make_archive(("documentation", FILES, zipfile.ZIP_DEFLATED)))
    task = stack.wait_for_end(answer.links["status"]["url"].rpartition("/")[2])
    operation, model_id = "Models-read_file", task["models"][0]["model_id"]
    page.try_out(operation)
    page.fill(operation, model_id=model_id, path="config.json")
    status, response = page.execute(operation)
    assert (status, page.list_errors()) == (200, []), response
    page.click("//a[text()='Download file']")
    saved = tmp_path / "downloads" / "config.json"
    wait_until(saved.exists)
    assert saved.read_bytes() == FILES["config.json"]


@pytest.mark.timeout(900)
def test_the_api_keeps_to_its_document(stack: Stack, tmp_path: Path) -> None:
    """Made-up requests, right and wrong: no server error, and no answer that the document does not tell.

    Not checked: that all that fits the schema is accepted (names have rules that a schema does not say), and what API
    Gateway itself answers without a key, which MiniStack words in its own way.
    """
    url = stack.state.api_url
    document = stack.http.get(f"{url}/openapi.json", timeout=30).json()
    del document["security"], document["components"]["securitySchemes"]
    # Only stacks with Signing=KMS have this route. MiniStack has no gateway response for missing routes.
    del document["paths"]["/models/{model_id}/signature"]["post"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "openapi.json", f"--url={url}"]
    command += ["--header", f"x-api-key: {stack.state.api_key}", f"--checks={','.join(CHECKS)}", "--max-redirects=0"]
    command += ["--max-examples=15", "--request-timeout=60", "--continue-on-failure", "--no-color"]
    try:
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    finally:
        cancel_pending(stack)
    assert run.returncode == 0, run.stdout + run.stderr


def cancel_pending(stack: Stack) -> None:
    """What was begun stays until it is cancelled: an upload of 7 GB, for one."""
    tasks: list[dict[str, Any]] = []
    asked = {"status": "PENDING", "limit": "100"}
    while True:
        page = stack.http.get(f"{stack.state.api_url}/upload/tasks", params=asked, timeout=30).json()
        tasks += page["tasks"]
        if page["cursor"] is None:
            break
        asked["cursor"] = page["cursor"]
    for task in tasks:
        stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task['id']}", timeout=30)
