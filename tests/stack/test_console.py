"""The widget of the dashboard on the deployed stack, whose functions are invoked as the console invokes them."""

import json
import zipfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
from selectolax.lexbor import LexborHTMLParser

from tests.browsers import WidgetPage, open_browser
from tests.lambda_functions import read_event
from tests.pickles import SYSTEM, build_torch_zip
from tests.stack.conftest import Stack
from tests.stack.test_gate import FILES
from tests.stack.test_import_archive import make_archive, post
from tests.upstream.repositories import SMALL

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def invoke(stack: Stack, arn: str, event: dict[str, Any]) -> str:
    response = stack.functions.invoke(FunctionName=arn, Payload=json.dumps(event).encode())
    payload = response["Payload"].read()
    assert response.get("FunctionError") is None, payload
    html: str = json.loads(payload)
    return html


def show(stack: Stack, **parameters: object) -> LexborHTMLParser:
    function = stack.state.outputs["RenderWidgetFunction"]
    return LexborHTMLParser(invoke(stack, function, {**read_event("render_widget"), **parameters}))


def find_row(page: LexborHTMLParser, text: str) -> tuple[str, dict[str, tuple[str, dict[str, Any]]]]:
    """The text of the row that contains a text, and endpoint and parameters of its buttons."""
    (row,) = [row for row in page.css("tr") if text in row.text()]
    actions = {
        button.text(): (str(action.attributes["endpoint"]), json.loads(action.text()))
        for button, action in zip(row.css("a.btn"), row.css("cwdb-action"), strict=True)
    }
    return " ".join(row.text(separator=" ").split()), actions


def submit_archive(stack: Stack, name: str, files: dict[str, bytes]) -> str:
    answer = post(stack, make_archive((name, files, zipfile.ZIP_DEFLATED)), model_name=f"console/{name}")
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    return answer.links["status"]["url"].rpartition("/")[2]


def test_widget_shows_and_cancels_an_import(stack: Stack) -> None:
    with stack.pause_consumer("TransferQueue"):
        task_id = stack.accept(SMALL, ignore_patterns=["console"])
        stack.wait_for(task_id, lambda task: task["stage"] == "TRANSFERRING")
        stack.wait_until(lambda: task_id in (show(stack).html or ""), "the index of tasks follows the table")
        text, actions = find_row(show(stack), f'"{task_id}"')
        assert f"{SMALL}@main HUGGINGFACE transferring 0/" in text
        assert "0 %, 0 bytes of " in text
        # The endpoints are the ARNs that the functions have in the account.
        details = invoke(stack, actions["Details"][0], actions["Details"][1])
        assert task_id in details
        assert "Import cancelled" in invoke(stack, actions["Cancel"][0], actions["Cancel"][1])
        assert stack.read_task(task_id)["stage"] == "CANCELLED"
        assert "has already ended" in invoke(stack, actions["Cancel"][0], actions["Cancel"][1])


def test_widget_shows_failures_and_models(stack: Stack) -> None:
    failed = submit_archive(stack, "bad", {**FILES, "pytorch_model.bin": build_torch_zip(SYSTEM)})
    assert stack.wait_for_end(failed)["task_status"] == "FAILED"
    imported = submit_archive(stack, "good", FILES)
    model_id = stack.wait_for_end(imported)["models"][0]["model_id"]
    stack.wait_until(lambda: model_id in (show(stack).html or ""))
    page = show(stack)
    text, actions = find_row(page, f'"{failed}"')
    assert "could run code: pytorch_model.bin" in text
    assert "Import the model in safetensors format" in text
    assert list(actions) == ["Details"]
    text, actions = find_row(page, f'"{model_id}"')
    assert text.startswith("console/good LOCAL clean")
    details = invoke(stack, actions["Details"][0], actions["Details"][1])
    assert f"s3://{stack.state.models_bucket}/models/local/console/good/" in details


def test_page_of_the_local_stack_invokes_only_the_widgets_functions(stack: Stack) -> None:
    url = stack.state.console_url
    assert requests.get(url, timeout=30).status_code == HTTPStatus.OK
    for output, status in (("RenderWidgetFunction", HTTPStatus.OK), ("SweepStaleFunction", HTTPStatus.BAD_GATEWAY)):
        body = {"endpoint": stack.state.outputs[output], "event": {}}
        assert requests.post(f"{url}invoke", json=body, timeout=30).status_code == status


def test_import_is_cancelled_in_a_browser(stack: Stack, tmp_path: Path) -> None:
    with stack.pause_consumer("PlanQueue"), open_browser(tmp_path) as browser:
        task_id = stack.accept(SMALL, ignore_patterns=["browser"])
        stack.wait_until(lambda: task_id in (show(stack).html or ""))
        page = WidgetPage(browser)
        page.open(stack.state.console_url)
        page.click(task_id, "Cancel")
        page.answer("confirmation", "Confirm")
        page.wait_for_text("popup", f"Task {task_id} is cancelled.")
        page.check()
    assert stack.read_task(task_id)["stage"] == "CANCELLED"
