"""The widget of the CloudWatch dashboard, through the handlers of its functions."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.filesize import decimal
from selectolax.lexbor import LexborHTMLParser, LexborNode

from modelhaul.catalog.presentation import present_task
from modelhaul.console import texts
from modelhaul.console.overview import COUNT_TIME, MAX_PENDING, RECENT, STORAGE_AGE, ConsoleReader
from modelhaul.console.pages import View, render_error, render_model, render_overview, render_task
from modelhaul.domain.errors import InternalError, StorageUnavailableError
from modelhaul.domain.findings import FileInspection, FileVerdict, Finding, FindingKind, Severity
from modelhaul.domain.gate import GateReport, GateVerdict
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.domain.quotas import QuotaState
from modelhaul.domain.selection import Selection
from modelhaul.domain.signatures import ModelSignature
from modelhaul.domain.tasks import Stage, Task, TaskError
from modelhaul_cli import waiting as command_line_waiting
from modelhaul_cli.output import format_duration
from modelhaul_cli.progress import describe_pace
from tests import console
from tests.console import CANCEL_ARN, HANDLERS, RENDER_ARN, run_handler
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import read_event

MAX_SIZE = 100_000  # bytes of the widget with 50 imports in progress
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</td></tr></table><iframe src=//evil.example>",
    "</style><script>alert(1)</script>",
    "</cwdb-action><a>x</a><cwdb-action action=call endpoint=arn:evil>{}</cwdb-action>",
    "<!--",
    "]]>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "https://evil.example/x",
    "\ud800\u202egnp.exe\x00\x1b[31m",
    "a" * 5000,
    "&" * 5000,
]


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    source = InMemoryModelSource(models={"org/model": {"main": {"config.json": b"{}"}}})
    deployment = Deployment(source)
    deployment.clock.now = datetime.now(UTC).timestamp()
    console.connect_console(deployment, monkeypatch)
    return deployment


def invoke(function: str, event: dict[str, Any]) -> str:
    (arn,) = [arn for arn, name in HANDLERS.items() if name == function]
    html = run_handler(arn, event)
    assert isinstance(html, str)
    return html


def show(**parameters: object) -> str:
    return invoke("render_widget", {**read_event("render_widget"), **parameters})


def parse(html: str) -> LexborHTMLParser:
    return LexborHTMLParser(html)


def find_rows(html: str, heading: str, *, table: int = 0) -> list[LexborNode]:
    """The rows of a table after the heading, without that of its labels."""
    (title,) = [node for node in parse(html).css("h3") if node.text() == heading]
    tables, node = [], title.next
    while node is not None and node.tag != "h3":
        tables += [node] if node.tag == "table" else []
        node = node.next
    return tables[table].css("tr")[1:]


def read_text(node: LexborNode | None) -> str:
    assert node is not None
    return " ".join(node.text(separator=" ").split())


def find_actions(node: LexborNode | LexborHTMLParser) -> dict[str, tuple[str, dict[str, Any]]]:
    """Endpoint and parameters by the label of the button before the cwdb-action."""
    found = {}
    for action in node.css("cwdb-action"):
        button = action.prev
        assert button is not None
        assert (button.tag, button.attributes["class"]) == ("a", "btn")
        assert action.attributes["action"] == "call"
        found[button.text()] = (str(action.attributes["endpoint"]), json.loads(action.text()))
    return found


def test_imports_in_progress_have_the_words_of_the_command_line(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    rows = {read_text(row): row for row in find_rows(show(), "In progress")}
    assert len(rows) == 4
    for task in deployment.database.tasks.list_pending(10):
        (text,) = [text for text in rows if text.startswith(task.model_tag)]
        shown = present_task(task)
        progress = shown["progress"]
        assert f" {task.source} {task.stage.lower()} " in text
        if progress["bytes_total"]:
            assert f"{progress['files_done']}/{progress['files_total']} files" in text
            assert f"{decimal(progress['bytes_done'])} of {decimal(progress['bytes_total'])}" in text
            (bar,) = rows[text].css("[role=progressbar]")
            assert bar.attributes["aria-valuenow"] == str(100 * progress["bytes_done"] // progress["bytes_total"])
        if "waiting" in shown:
            zone = timezone(timedelta(hours=2))
            assert texts.describe_waiting(shown["waiting"], zone, datetime.now(UTC)) in text
            assert re.search(r"next attempt in [34][0-9] s", text)
        elif progress["bytes_total"]:
            assert describe_pace(progress["bytes_per_second"], None) in text
            assert " left " in text
    assert find_actions(rows[text])["Cancel"][0] == CANCEL_ARN


def test_a_refresh_shows_what_is_read_at_that_moment(deployment: Deployment) -> None:
    assert "No imports are in progress." in show()
    task = deployment.submit("org/model")
    (row,) = find_rows(show(), "In progress")
    assert find_actions(row) == {
        "Details": (RENDER_ARN, {"show": "task", "id": task.id}),
        "Cancel": (CANCEL_ARN, {"task_id": task.id}),
    }
    deployment.run()
    html = show()
    assert "No imports are in progress." in html
    assert "None of the newest 1 imports has failed." in html
    (row,) = find_rows(html, "Newest models")
    assert read_text(row).startswith("org/model HUGGINGFACE main clean")


def test_failures_have_error_and_remedy(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    rows = [read_text(row) for row in find_rows(show(), "Failures")]
    assert len(rows) == 3
    assert "acme/private-encoder@main" in rows[0]
    assert "Access to acme/private-encoder is required." in rows[0]
    assert "request access on its page first" in rows[0]
    assert "1 of 2 models failed." in rows[2]


def test_cancelled_imports_are_no_failures(deployment: Deployment) -> None:
    task = deployment.submit("org/model")
    deployment.finisher.cancel(task.id)
    assert "None of the newest 1 imports has failed." in show()


def test_models_have_the_results_of_the_inspection(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    rows = [read_text(row) for row in find_rows(show(), "Newest models")]
    assert re.search(r"Mistral-7B-Instruct-v0.3 HUGGINGFACE main clean 12 16\.0 GB", rows[0])
    assert "unscanned code: modeling_custom.py and 1 more" in rows[1]
    assert "unsafe pytorch_model.bin: Pickle imports os.system" in rows[2]


def test_storage_and_reuse(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    html = show()
    rows = [read_text(row) for row in find_rows(html, "Storage")]
    assert rows[0].startswith("HUGGINGFACE 2 34.0 GB")
    assert rows[3].startswith("Total 4 66.3 GB")
    assert re.search(r"Reuse of stored files saved 9\.0 GB of [0-9.]+ GB in the newest 7 imports\.", html)


def test_totals_of_many_models_are_lower_bounds(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    console.fill_tables(deployment.tables)
    list_ready = deployment.database.models.list_ready

    def list_slowly() -> Iterator[Model]:
        for model in list_ready():
            deployment.clock.now += COUNT_TIME * 0.6
            yield model

    monkeypatch.setattr(deployment.database.models, "list_ready", list_slowly)
    assert "Total at least 1 at least 16.0 GB" in read_text(find_rows(show(), "Storage")[3])


def test_largest_names_and_unread_models(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    html = show()
    names = [read_text(row) for row in find_rows(html, "Storage", table=1)]
    assert names[0].startswith("BAAI/bge-m3 HUGGINGFACE 1 18.0 GB")
    assert len(names) == 4
    assert "16.1 GB" in read_text(find_rows(html, "Storage", table=2)[1])
    assert "0 models were not read for 30 days" in read_text(parse(html).body)
    deployment.clock.now += 86_400 * 32
    html = show()
    assert "4 models were not read for 30 days: 66.3 GB" in read_text(parse(html).body)
    assert " never " in read_text(find_rows(html, "Storage", table=3)[0])


def test_the_quota_is_shown_with_what_imports_have_reserved(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "quota" not in show()
    limited = Deployment(deployment.source, quota=100 * console.GB)
    limited.clock.now = deployment.clock.now
    console.connect_console(limited, monkeypatch)
    console.fill_tables(limited.tables)
    transfer = next(task for task in limited.tables.tasks.values() if task.stage is Stage.TRANSFERRING)
    limited.tables.quota = QuotaState().reserve(transfer.id, 7 * console.GB)
    text = read_text(parse(show()).body)
    assert "66.3 GB of the quota of 100.0 GB. Imports in progress have reserved 7.0 GB." in text


def test_storage_is_measured_again_after_a_while(deployment: Deployment) -> None:
    show()
    console.fill_tables(deployment.tables)
    assert read_text(find_rows(show(), "Storage")[0]).startswith("HUGGINGFACE 0 0 bytes")
    deployment.clock.now += STORAGE_AGE
    assert read_text(find_rows(show(), "Storage")[0]).startswith("HUGGINGFACE 2 ")


def test_details_of_a_task(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    failed = parse(show(show="task", id=f"{45:08x}-0000-4000-8000-000000000000"))
    text = read_text(failed.css_first(".mh"))
    assert "Status FAILED, failed" in text
    assert "Error pytorch_model.bin: Pickle imports os.system." in text
    assert "What to do Import the model in safetensors format" in text
    partly = show(show="task", id=f"{60:08x}-0000-4000-8000-000000000000")
    rows = [read_text(row) for row in find_rows(partly, "Models")]
    assert any("nightly/broken FAILED weights.pkl: Pickle imports os.system." in row for row in rows)


def test_details_of_a_model(deployment: Deployment) -> None:
    console.fill_tables(deployment.tables)
    model = next(m for m in deployment.tables.models.values() if m.resolved.name == "team/classifier")
    html = show(show="model", id=model.model_id)
    text = read_text(parse(html).css_first(".mh"))
    assert f"Location s3://models-bucket/{model.resolved.prefix}" in text
    assert "Inspection unsafe , second scanner: malicious" in text
    assert [read_text(row) for row in find_rows(html, "Files")] == [
        "pytorch_model.bin torch-zip unsafe high: Pickle imports os.system.",
        "config.json json clean",
    ]
    assert "Signed" not in text
    signature = ModelSignature("arn:aws:kms:us-east-1:123456789012:key/1a2b3c4d", "PEM", model.created_at)
    deployment.tables.models[model.model_id] = replace(model, signature=signature)
    text = read_text(parse(show(show="model", id=model.model_id)).css_first(".mh"))
    assert re.search(r"Signed \d.*, key arn:aws:kms:us-east-1:123456789012:key/1a2b3c4d", text)


def test_warnings_of_the_policy_are_shown(deployment: Deployment) -> None:
    task_id = deployment.submit("org/model").id
    deployment.run()
    (model,) = deployment.tables.models.values()
    assert "Warnings of the import policy" not in show(show="model", id=model.model_id)
    hostile = PolicyWarning("templates", "<b>Reviewed</b> templates only.", ("finding chat-template (low)",))
    policy = PolicyResult(PolicyDecision.ALLOW, warnings=(hostile,))
    deployment.tables.models[model.model_id] = replace(model, policy=policy)
    text = read_text(parse(show(show="model", id=model.model_id)).css_first(".mh"))
    assert "Policy 1 warning" in text
    assert "<b>Reviewed</b> templates only. Rule templates: finding chat-template (low)" in text
    task = parse(show(show="task", id=task_id))
    assert "Warning of the import policy: <b>Reviewed</b> templates only." in read_text(task.css_first(".mh"))


def test_cancel(deployment: Deployment) -> None:
    task = deployment.submit("org/model")
    event = {**read_event("cancel_from_console"), "task_id": task.id}
    assert f"Task {task.id} is cancelled." in invoke("cancel_from_console", event)
    cancelled = deployment.find_task(task.id)
    assert (cancelled.stage, cancelled.cancelled_by) == (Stage.CANCELLED, "aws-account:123456789012")
    assert "Cancelled by aws-account:123456789012" in read_text(parse(show(show="task", id=task.id)).css_first(".mh"))
    again = invoke("cancel_from_console", event)
    assert f"Task {task.id} has already ended." in again
    assert "The details of the task show its result." in again
    unknown = invoke("cancel_from_console", read_event("cancel_from_console"))
    assert "not found" in unknown


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"task_id": None},
        {"task_id": "<script>"},
        {"task_id": ["5f0c3b1e-2d4a-4c6b-9a8e-7d1f2e3c4b5a"]},
        {"task_id": "5f0c3b1e-2d4a-4c6b-9a8e-7d1f2e3c4b5a\n"},
    ],
)
def test_cancel_rejects_other_parameters(deployment: Deployment, parameters: dict[str, object]) -> None:
    assert "Invalid parameters of the widget: task_id." in invoke("cancel_from_console", parameters)


@pytest.mark.parametrize("parameters", [{"show": "x"}, {"show": "task"}, {"show": "model", "id": "name#a"}])
def test_show_rejects_other_parameters(deployment: Deployment, parameters: dict[str, object]) -> None:
    assert "Invalid parameters of the widget: " in show(**parameters)


def test_unknown_records(deployment: Deployment) -> None:
    unknown = "5f0c3b1e-2d4a-4c6b-9a8e-7d1f2e3c4b5a"
    assert "Refresh the dashboard. The model was deleted." in show(show="model", id=unknown)
    assert "A task is removed 90 days after its end." in invoke("render_widget", read_event("show_task"))


def test_the_console_gets_documentation() -> None:
    documentation = invoke("render_widget", read_event("show_widget_documentation"))
    assert documentation.startswith("## Modelhaul\n")
    assert "lambda:InvokeFunction" in documentation


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            StorageUnavailableError("DynamoDB request failed."),
            "Refresh the dashboard in a minute.",
        ),
        (RuntimeError("secret"), "Internal error. Request ID: request-1."),
    ],
)
def test_errors_are_shown_in_the_widget(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def fail(limit: int) -> list[Task]:
        raise error

    monkeypatch.setattr(deployment.database.tasks, "list_pending", fail)
    html = show()
    assert text in html
    assert "secret" not in html


@pytest.mark.parametrize(
    ("context", "time"),
    [
        ({"timezone": {"offsetISO": "+02:00"}}, "2025-06-22 14:00"),
        ({"timezone": {"offsetISO": "-03:30"}}, "2025-06-22 08:30"),
        ({"timezone": {"offsetISO": "<script>"}}, "2025-06-22 12:00"),
        ({"timezone": None}, "2025-06-22 12:00"),
        (None, "2025-06-22 12:00"),
    ],
)
def test_times_are_those_of_the_dashboard(deployment: Deployment, context: object, time: str) -> None:
    created = datetime(2025, 6, 22, 12, tzinfo=UTC)
    deployment.tables.record(replace(console.make_task(1, "org/model", created), created_at=created))
    assert time in invoke("render_widget", {"widgetContext": context})


def find_palette(html: str) -> dict[str, str]:
    return dict(re.findall(r"--mh-([a-z]+):(#[0-9a-f]{6})", html))


def measure_luminance(color: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("theme", "background"), [("light", "#ffffff"), ("dark", "#192534")])
def test_text_is_readable_in_both_themes(deployment: Deployment, theme: str, background: str) -> None:
    palette = find_palette(show(widgetContext={"theme": theme}))
    for name in ("quiet", "good", "warn", "bad"):
        light, dark = sorted((measure_luminance(palette[name]), measure_luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, palette[name])


def test_fifty_imports_fit_the_size(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    for number in range(60):
        detail = "huggingface.co did not respond: 503 Service Unavailable."
        deployment.tables.record(console.make_waiting(number, f"organization-{number}/{'model-' * 8}", now, detail))
    html = show()
    assert len(find_rows(html, "In progress")) == MAX_PENDING
    assert "More imports are in progress." in html
    assert len(html.encode()) <= MAX_SIZE


def test_fifty_imports_with_hostile_names_are_not_much_larger(deployment: Deployment) -> None:
    for number in range(MAX_PENDING):
        deployment.tables.record(console.make_waiting(number, "&" * 5000, datetime.now(UTC), '"' * 5000))
    assert len(show().encode()) <= 2 * MAX_SIZE


def test_a_refresh_reads_a_bounded_number_of_records(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    for number in range(3 * RECENT):
        error = TaskError("access-required", "Access is required.", retryable=False)
        deployment.tables.record(console.make_failed(number, "org/model", now, error))
    html = show()
    assert len(find_rows(html, "Failures")) == 10
    assert f"newest {RECENT} imports" in html


hostile = st.sampled_from(HOSTILE) | st.text(st.characters(), max_size=200)


@st.composite
def draw_view(draw: st.DrawFn) -> View:
    theme = draw(st.sampled_from(["light", "dark"]))
    return View(datetime(2026, 11, 28, 12, tzinfo=UTC), "models-bucket", RENDER_ARN, CANCEL_ARN, theme)


@st.composite
def draw_page(draw: st.DrawFn) -> str:
    """A page with values that anybody may have chosen."""
    view = draw(draw_view())
    now, name, detail = view.now, draw(hostile), draw(hostile)
    error = TaskError(draw(hostile), detail, retryable=False, remedy=draw(hostile))
    selection = Selection((draw(hostile),), (draw(hostile),))
    findings = (Finding(FindingKind.CODE, Severity.HIGH, draw(hostile)),)
    files = (FileInspection(draw(hostile), "ab" * 32, "json", FileVerdict.UNSAFE, draw(hostile), findings),)
    report = GateReport(GateVerdict.UNSAFE, (draw(hostile),), (draw(hostile),), files=files)
    model = console.make_model(1, "org/model", now, report)
    # The ID of a model is derived from its name, so that a name can be encoded.
    encoded = name.encode(errors="replace").decode()
    resolved = replace(model.resolved, name=encoded, revision=draw(hostile), selection=selection)
    model = replace(model, resolved=resolved)
    failed = replace(console.make_failed(2, name, now, error), commit=draw(hostile), selection=selection)
    deployment = Deployment()
    deployment.clock.now = now.timestamp()
    for task in (failed, console.make_waiting(3, name, now, detail, draw(hostile))):
        deployment.tables.record(task)
    deployment.tables.models[model.model_id] = model
    reader = ConsoleReader(deployment.database.tasks, deployment.database.models, deployment.usage, deployment.clock)
    match draw(st.sampled_from(["overview", "task", "model", "error"])):
        case "overview":
            return render_overview(reader.read_overview(), view)
        case "task":
            broken = replace(model, model_id="x", status=ModelStatus.FAILED)
            return render_task(failed, [model, broken], view)
        case "model":
            return render_model(model, view)
    return render_error(InternalError(detail), view)


TAGS = set(re.findall(r"[a-z0-9-]+", "html head body style div h3 p table tbody tr th td span br a ul li cwdb-action"))
ATTRIBUTES = {
    "a": {"class": r"btn"},
    "cwdb-action": {
        "action": r"call",
        "display": r"popup",
        "endpoint": f"{RENDER_ARN}|{CANCEL_ARN}",
        "confirmation": r"(?s).*",
    },
    "div": {
        "class": r"mh|mh-bar",
        "style": r"width:[0-9]{1,3}%",
        "role": "progressbar",
        "aria-label": r"[A-Za-z ]+",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-valuenow": r"[0-9]{1,3}",
    },
}
CLASSES = {"class": r"mh-[a-z]+( mh-[a-z]+)?"}


@settings(max_examples=300, deadline=None)
@given(draw_page())
def test_no_value_becomes_markup(html: str) -> None:
    """Whatever the values are, the page has only the elements and attributes of its templates."""
    html.encode()
    tree = parse(html)
    for node in tree.css("*"):
        assert node.tag in TAGS, html
        allowed = ATTRIBUTES.get(str(node.tag), CLASSES)
        for name, value in node.attributes.items():
            assert re.fullmatch(allowed.get(name, "$none"), value or ""), (node.tag, name, value)
    for style in tree.css("style"):
        assert not re.search(r"url|import|expression|@", style.text())
    for action in tree.css("cwdb-action"):
        parameters = json.loads(action.text())
        identifiers = [value for key, value in parameters.items() if key != "show"]
        assert all(re.fullmatch(r"[0-9a-f-]{36}", value) for value in identifiers)
    assert len(html.encode()) <= MAX_SIZE
    assert "\u202e" not in html


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**19))
def test_sizes_are_those_of_the_command_line(size: int) -> None:
    assert texts.format_size(size) == decimal(size)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 10**7))
def test_durations_are_those_of_the_command_line(seconds: float) -> None:
    assert texts.format_duration(seconds) == format_duration(seconds)


@pytest.mark.parametrize(
    "reason",
    ["rate-limited", "source-unavailable", "stalled-transfer", "policy-unavailable", "storage-unavailable", "x"],
)
def test_waits_are_those_of_the_command_line(reason: str) -> None:
    now = datetime.now().astimezone()
    for since in (now, now - timedelta(days=3)):
        waiting = {"reason": reason, "detail": "ERROR.", "since": since.isoformat()}
        zone = now.tzinfo
        assert zone is not None
        assert texts.describe_waiting(waiting, zone, now) == command_line_waiting.describe_waiting(waiting)
