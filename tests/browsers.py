"""A real browser without a display."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, presence_of_element_located
from selenium.webdriver.support.ui import Select
from selenium.webdriver.support.wait import WebDriverWait

_ARGUMENTS = (
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
)
_PATIENCE = 30.0  # seconds


@contextmanager
def open_browser(folder: Path, *arguments: str) -> Iterator[Chrome]:
    """Start Chromium with a new profile in `folder`. It saves files in `folder / "downloads"`.

    Skip the test if Chromium or its driver is missing.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are missing (`make test` says how to get them)")
    options = ChromeOptions()
    options.binary_location = chromium
    options.accept_insecure_certs = True
    for argument in (*_ARGUMENTS, f"user-data-dir={folder / 'profile'}", *arguments):
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@dataclass(frozen=True)
class DocumentationPage:
    """`/v1/docs` as somebody uses it. `operation` is `TAG-OPERATION_ID`."""

    browser: Chrome

    def open(self, url: str, api_key: str) -> None:
        """Open the page and authorize its requests."""
        self.browser.get(url)
        self.click("//div[contains(@class, 'auth-wrapper')]//button[contains(@class, 'authorize')]")
        self.find("//div[contains(@class, 'auth-container')]//input").send_keys(api_key)
        self.click("//div[contains(@class, 'auth-btn-wrapper')]/button[@type='submit']")
        self.click("//div[contains(@class, 'auth-btn-wrapper')]/button[contains(@class, 'btn-done')]")

    def try_out(self, operation: str) -> None:
        """Open the form of the operation."""
        self.click(f"{_locate(operation)}//button[contains(@class, 'opblock-summary-control')]")
        self.click(f"{_locate(operation)}//button[contains(@class, 'try-out__btn')]")

    def choose_content_type(self, operation: str, content_type: str) -> None:
        menu = self.find(f"{_locate(operation)}//*[contains(@class, 'body-param-content-type')]//select")
        Select(menu).select_by_value(content_type)

    def fill(self, operation: str, **parameters: str) -> None:
        """Replace the values of parameters."""
        for name, value in parameters.items():
            field = self.find(f"{_locate(operation)}//tr[@data-param-name='{name}']//input")
            field.clear()
            field.send_keys(value)

    def find_field(self, operation: str, name: str) -> WebElement:
        """Return the input of a field of a form, which is not a checkbox."""
        return self.find(f"{_locate(operation)}//tr[@data-property-name='{name}']//input[not(@type='checkbox')]")

    def execute(self, operation: str) -> tuple[int, str]:
        """Send the request, and return the status and the text of the displayed response."""
        self.click(f"{_locate(operation)}//button[contains(@class, 'execute')]")
        row = f"{_locate(operation)}//table[contains(@class, 'live-responses-table')]/tbody/tr"
        status = self.find(f"{row}/td[contains(@class, 'response-col_status')]").text.split()[0]
        response = self.find(f"{row}/td[contains(@class, 'response-col_description')]").text
        return (int(status) if status.isdigit() else 0), response

    def list_errors(self) -> list[str]:
        return list_errors(self.browser)

    def find(self, path: str) -> WebElement:
        return WebDriverWait(self.browser, _PATIENCE).until(presence_of_element_located((By.XPATH, path)))

    def click(self, path: str) -> None:
        WebDriverWait(self.browser, _PATIENCE).until(element_to_be_clickable((By.XPATH, path))).click()


@dataclass(frozen=True)
class WidgetPage:
    """The page of the local stack with the widget of the dashboard, as somebody uses it."""

    browser: Chrome

    def open(self, url: str, theme: str = "light") -> None:
        self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        self.browser.get(f"{url}?theme={theme}&automatic=no")
        self.wait_until(lambda: self.browser.find_elements(By.CSS_SELECTOR, "#widget h3"))

    def read(self, part: str = "widget") -> str:
        """Return the displayed text of `widget`, `popup` or `confirmation`."""
        return self.browser.find_element(By.ID, part).text

    def click(self, row: str, button: str) -> None:
        """Click on a button in the row that contains a text."""
        path = f"//*[@id='widget']//tr[contains(., '{row}')]//a[@class='btn' and .='{button}']"
        self.browser.find_element(By.XPATH, path).click()

    def answer(self, part: str, button: str) -> None:
        """Click on a button of `popup` or `confirmation`, which closes it."""
        self.browser.find_element(By.XPATH, f"//*[@id='{part}']//button[.='{button}']").click()
        self.wait_until(lambda: not self.browser.find_element(By.ID, part).is_displayed())

    def wait_for_text(self, part: str, text: str) -> None:
        self.wait_until(lambda: text in self.read(part))

    def wait_until(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.browser, _PATIENCE, poll_frequency=0.05).until(lambda _: condition())

    def check(self) -> None:
        """Assert that nothing was removed from the widget, and that the browser has blocked nothing."""
        assert self.browser.find_element(By.ID, "widget").get_attribute("data-removed") == "0"
        assert list_errors(self.browser) == []


def list_errors(browser: Chrome) -> list[str]:
    """Return the errors in the browser's console, such as requests that a policy has blocked."""
    log: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


def _locate(operation: str) -> str:
    return f"//*[@id='operations-{operation}']"
