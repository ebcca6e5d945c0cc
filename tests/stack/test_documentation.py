"""The API's document and page on the deployed stack: in a real browser, and against all that the API answers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from local.stack import LOCAL
from tests.stack.conftest import Stack

pytestmark = pytest.mark.stack

ARTIFACTS = LOCAL / "artifacts"
OPERATION = "//*[@id='operations-Tasks-list_tasks']"
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
def browser(tmp_path: Path) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are missing (`make test` says how to get them)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1280,1800",
        f"user-data-dir={tmp_path}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.mark.timeout(300)
def test_the_page_is_used_in_a_browser(stack: Stack, browser: Chrome) -> None:
    wait = WebDriverWait(browser, 30)

    def click(path: str) -> None:
        wait.until(element_to_be_clickable((By.XPATH, path))).click()

    browser.get(f"{stack.state.api_url}/docs")
    click("//div[contains(@class, 'auth-wrapper')]//button[contains(@class, 'authorize')]")
    field = wait.until(presence_of_element_located((By.XPATH, "//div[contains(@class, 'auth-container')]//input")))
    field.send_keys(stack.state.api_key)
    click("//div[contains(@class, 'auth-btn-wrapper')]/button[@type='submit']")
    click("//div[contains(@class, 'auth-btn-wrapper')]/button[contains(@class, 'btn-done')]")
    click(f"{OPERATION}//button[contains(@class, 'opblock-summary-control')]")
    click(f"{OPERATION}//button[contains(@class, 'try-out__btn')]")
    click(f"{OPERATION}//button[contains(@class, 'execute')]")
    live = "//table[contains(@class, 'live-responses-table')]/tbody//td[contains(@class, 'response-col_status')]"
    status = wait.until(presence_of_element_located((By.XPATH, OPERATION + live))).text
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(ARTIFACTS / "docs.png"))
    assert status.split()[0] == "200"
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry["message"] for entry in log if entry["level"] == "SEVERE"] == []


@pytest.mark.timeout(900)
def test_the_api_keeps_to_its_document(stack: Stack, tmp_path: Path) -> None:
    """Made-up requests, right and wrong: no server error, and no answer that the document does not tell.

    Not checked: that all that fits the schema is accepted (names have rules that a schema does not say), and what API
    Gateway itself answers without a key, which MiniStack words in its own way.
    """
    url = stack.state.api_url
    document = stack.http.get(f"{url}/openapi.json", timeout=30).json()
    del document["security"], document["components"]["securitySchemes"]
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
