"""The widget of the dashboard in a real browser, in the page of the local stack that stands in for the console."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from local.console import POLICY, ConsoleServer, InvocationError
from modelhaul.domain.tasks import Stage, TaskError
from tests import console
from tests.browsers import WidgetPage, open_browser
from tests.fakes.deployment import Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTILE = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script>"
BACKGROUNDS = {"light": "255, 255, 255", "dark": "25, 37, 52"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser: Chrome) -> WidgetPage:
    return WidgetPage(browser)


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment()
    deployment.clock.now = datetime.now(UTC).timestamp()
    console.connect_console(deployment, monkeypatch)
    console.fill_tables(deployment.tables)
    return deployment


@pytest.fixture
def server(deployment: Deployment) -> Iterator[ConsoleServer]:
    with console.serve_console() as server:
        yield server


@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_widget_has_the_theme_of_the_dashboard(page: WidgetPage, server: ConsoleServer, theme: str) -> None:
    page.open(server.url, theme)
    text = page.read()
    for part in ("In progress", "Failures", "Newest models", "Storage", "37 %, 22.6 GB of 61.0 GB"):
        assert part in text
    assert "waiting for the source since" in text
    widget = page.browser.find_element(By.ID, "widget")
    assert BACKGROUNDS[theme] in widget.value_of_css_property("background-color")
    # The colors of the widget are those of the theme, too.
    quiet = widget.find_element(By.CSS_SELECTOR, ".mh-small").value_of_css_property("color")
    assert {"light": "84, 91, 100", "dark": "164, 172, 182"}[theme] in quiet
    page.check()


def test_bars_show_the_transferred_bytes(page: WidgetPage, server: ConsoleServer) -> None:
    page.open(server.url)
    bars = page.browser.find_elements(By.CSS_SELECTOR, "[role=progressbar][aria-label='Transferred bytes']")
    shown = {}
    for bar in bars:
        filled = bar.find_element(By.CSS_SELECTOR, "div").rect["width"] / bar.rect["width"]
        shown[bar.get_attribute("aria-valuenow")] = round(100 * filled)
    assert shown.keys() == {"37", "12", "92"}
    assert all(abs(int(str(value)) - percent) <= 1 for value, percent in shown.items())


@pytest.mark.parametrize("width", [1280, 800])
def test_widget_fits_the_width(page: WidgetPage, server: ConsoleServer, width: int) -> None:
    page.browser.set_window_size(width, 1800)
    page.open(server.url)
    script = "const w = document.getElementById('widget'); return w.scrollWidth <= w.clientWidth"
    assert page.browser.execute_script(script)
    page.browser.set_window_size(1280, 1800)


def test_import_is_cancelled_after_a_confirmation(
    page: WidgetPage, server: ConsoleServer, deployment: Deployment
) -> None:
    name = console.NAMES[0]
    task = next(task for task in deployment.tables.tasks.values() if name in task.model_tag)
    page.open(server.url)
    page.click(name, "Cancel")
    page.wait_for_text("confirmation", f"Cancel the import of {task.model_tag}?")
    page.answer("confirmation", "Back")
    assert deployment.find_task(task.id).stage is Stage.TRANSFERRING
    page.click(name, "Cancel")
    page.answer("confirmation", "Confirm")
    page.wait_for_text("popup", f"Task {task.id} is cancelled.")
    assert deployment.find_task(task.id).stage is Stage.CANCELLED
    page.answer("popup", "Close")
    page.wait_until(lambda: name not in page.read())
    page.check()


def test_details_open_in_a_popup(page: WidgetPage, server: ConsoleServer) -> None:
    page.open(server.url)
    page.click("team/classifier", "Details")
    page.wait_for_text("popup", "Pickle imports os.system")
    assert "second scanner: malicious" in page.read("popup")
    page.check()


def test_hostile_names_are_text(page: WidgetPage, server: ConsoleServer, deployment: Deployment) -> None:
    now = datetime.now(UTC)
    error = TaskError("unsafe-model", HOSTILE, retryable=False, remedy=HOSTILE)
    deployment.tables.record(console.make_failed(1, HOSTILE, now, error))
    deployment.tables.record(console.make_waiting(2, HOSTILE, now, HOSTILE))
    page.open(server.url)
    assert page.read().count("<script>document.title='hacked'</script>") >= 4
    assert not page.browser.find_elements(By.CSS_SELECTOR, "#widget img, #widget script")
    assert page.browser.title == "Modelhaul console"
    page.check()


def test_failed_invocation_is_shown(page: WidgetPage) -> None:
    def fail(arn: str, event: dict[str, Any]) -> object:
        raise InvocationError("The function <b>render</b> failed.")

    with console.serve_console(fail) as server:
        page.browser.get(server.url)
        page.wait_for_text("widget", "The function <b>render</b> failed.")


def test_server_refuses_requests_of_other_pages(server: ConsoleServer) -> None:
    url = f"{server.url}invoke"
    body = {"endpoint": console.RENDER_ARN, "event": {}}
    assert requests.post(url, json=body, timeout=10).ok
    other = {"Host": f"evil.example:{server.server_port}"}
    assert requests.post(url, json=body, headers=other, timeout=10).status_code == HTTPStatus.FORBIDDEN
    assert requests.get(server.url, headers=other, timeout=10).status_code == HTTPStatus.FORBIDDEN
    # Without a preflight request, other pages can only send simple types.
    simple = {"Content-Type": "text/plain"}
    assert requests.post(url, json=body, headers=simple, timeout=10).status_code == HTTPStatus.NOT_FOUND
    assert requests.options(url, timeout=10).status_code == HTTPStatus.NOT_IMPLEMENTED


def test_server_serves_only_the_page(server: ConsoleServer) -> None:
    assert requests.post(f"{server.url}invoke", json=[], timeout=10).status_code == HTTPStatus.BAD_REQUEST
    assert requests.get(f"{server.url}console.py", timeout=10).status_code == HTTPStatus.NOT_FOUND
    assert requests.get(server.url, timeout=10).headers["Content-Security-Policy"] == POLICY
    assert server.server_address[0] == "127.0.0.1"
