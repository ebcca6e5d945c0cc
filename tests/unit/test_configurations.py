"""References to code in a model's JSON files."""

import json
from typing import Any

import pytest

from modelhaul.domain.findings import ContentReport
from modelhaul.inspection.formats.configurations import inspect_configuration


def inspect(path: str, content: Any) -> ContentReport:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return inspect_configuration(path, lambda start, end: data[start:end], len(data))


CASES: list[tuple[str, Any, list[tuple[str, str, str]]]] = [
    ("config.json", {"hidden_size": 8, "torch_dtype": "float16"}, []),
    ("vocab.json", {"auto": 1, "map": 2}, []),
    ("generation_config.json", [], []),
    ("config.json", {"auto_map": {"AutoModel": "modeling.Model"}}, [("auto-map", "low", "(modeling.Model)")]),
    (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["tok.Slow", None]}},
        [("auto-map", "low", "(tok.Slow)")],
    ),
    ("any.json", {"text_config": {"auto_map": {"AutoConfig": "c.C"}}}, [("auto-map", "low", "(c.C)")]),
    (
        "preprocessor_config.json",
        {"auto_map": {"AutoProcessor": "someone/else--proc.P"}},
        [("remote-code", "medium", "someone/else,")],
    ),
    ("config.json", {"custom_pipelines": {"a": {"impl": "p.P"}}}, [("auto-map", "low", "custom_pipelines")]),
    (
        "adapter_config.json",
        {"auto_mapping": {"base_model_class": "B", "parent_library": "evil.module"}},
        [("auto-map", "medium", "PEFT imports the Python module evil.module")],
    ),
    (
        "adapter_config.json",
        {"auto_mapping": {"base_model_class": "B", "parent_library": "transformers.models.bert"}},
        [],
    ),
    ("adapter_config.json", {"auto_mapping": None, "peft_type": "LORA"}, []),
    (
        "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
        [],
    ),
    (
        "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "os.system"}],
        [("auto-map", "medium", "sentence-transformers imports the Python module os.system")],
    ),
    (
        "model_index.json",
        {"_class_name": "Pipe", "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": [None, None]},
        [],
    ),
    (
        "model_index.json",
        {"_class_name": ["pipeline", "Mine"], "unet": ["my_unet", "U"]},
        [("auto-map", "medium", "module pipeline"), ("auto-map", "medium", "module my_unet")],
    ),
    ("tokenizer_config.json", {"chat_template": "{{ messages }}"}, [("chat-template", "low", "")]),
    (
        "tokenizer_config.json",
        {"chat_template": [{"name": "tool", "template": "{{ ''.__class__ }}"}]},
        [("unsafe-template", "high", "")],
    ),
    ("chat_template.json", {"chat_template": "{{ ().__class__ }}"}, [("unsafe-template", "high", "")]),
]


@pytest.mark.parametrize(("path", "content", "expected"), CASES, ids=lambda value: str(value)[:60])
def test_findings(path: str, content: Any, expected: list[tuple[str, str, str]]) -> None:
    report = inspect(path, content)
    assert report.reason is None
    assert report.format == "json"
    assert [(f.kind.value, f.severity.value) for f in report.findings] == [(kind, sev) for kind, sev, _ in expected]
    for finding, (_, _, words) in zip(report.findings, expected, strict=True):
        assert words in finding.detail


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"\xff", b"[" * 20_000 + b"]" * 20_000, b'{"a": ' + b"1" * 4_301 + b"}"],
    ids=["cut off", "empty", "not UTF-8", "nested", "digits"],
)
def test_invalid_json_has_a_reason(content: bytes) -> None:
    assert inspect("config.json", content).reason is not None


def test_unsafe_template_after_other_findings_is_found() -> None:
    for others in ({str(number): f"a.B{number}" for number in range(50)}, {}):
        content = {"auto_map": others, "chat_template": [{"template": "{% if %}"}, {"template": "{{ ''.__class__ }}"}]}
        report = inspect("tokenizer_config.json", content)
        assert report.findings[0].severity == "high"
        assert report.reason is not None


def test_invalid_template_has_a_reason() -> None:
    assert inspect("tokenizer_config.json", {"chat_template": "{% if %}"}).reason is not None


@pytest.mark.slow
def test_large_file_that_refers_to_code() -> None:
    padding = {"padding": ["x" * 1000] * 5000}
    assert inspect("tokenizer.json", padding) == ContentReport("json")
    report = inspect("tokenizer.json", {**padding, "auto_map": {"AutoModel": "a.B"}})
    assert [(finding.kind, report.reason) for finding in report.findings] == [("auto-map", None)]
    vocabulary = {"model": {"vocab": {f"token-{number}": number for number in range(250_000)}}}
    assert inspect("tokenizer.json", vocabulary) == ContentReport("json")
    report = inspect("tokenizer.json", {**vocabulary, "auto_map": {"AutoModel": "a.B"}})
    assert report.reason == "File has a value with more than 200,000 nested values"
    assert inspect("vocab.json", list(vocabulary["model"]["vocab"])).reason is None


def test_number_of_findings_is_limited() -> None:
    report = inspect("config.json", {"auto_map": {str(number): f"a.B{number}" for number in range(1000)}})
    assert len(report.findings) == 20
