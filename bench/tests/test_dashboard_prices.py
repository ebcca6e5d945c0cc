"""The dollars on the dashboard are those that `bench.prices` computes for the same counts."""

import ast
import operator
from collections.abc import Mapping
from typing import Any

import pytest

from bench import prices
from tests.template.dashboard import find_widget
from tests.template.rules import list_resources
from tests.template.test_monitoring import COST_WIDGETS
from tests.template.transformed import apply_parameters, read_transformed

DAY = 86_400
MONTH = 30 * DAY
OPERATORS = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}
FUNCTIONS = {
    "l1": "TransferFilesFunction",
    "l2": "PublishModelsFunction",
    "l3": "PlanImportFunction",
    "l4": "ReadHubFunction",
}


def evaluate(expression: str, values: Mapping[str, float], period: float) -> float:
    """Evaluate metric math whose metrics have one value each."""

    def read(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return values[name]
            case ast.BinOp(left=left, op=op, right=right):
                return float(OPERATORS[type(op)](read(left), read(right)))
            case ast.Call(func=ast.Name(id="FILL"), args=[filled, ast.Constant(value=0)]):
                return read(filled)
            case ast.Call(func=ast.Name(id="PERIOD"), args=[ast.Name()]):
                return period
        raise ValueError(ast.dump(node))

    return read(ast.parse(expression, mode="eval").body)


def read_rows(title: str) -> list[Any]:
    rows: list[Any] = find_widget(apply_parameters(read_transformed()), title)["properties"]["metrics"]
    return rows


def compute(rows: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the dollars of the expressions and those of `bench.prices`, by label. Each metric has another value."""
    values = {row[-1]["id"]: 1000.0 * (7 + n) for n, row in enumerate(rows) if "expression" not in row[-1]}
    values["s1"] *= 10**9
    resources = list_resources(apply_parameters(read_transformed()), "AWS::Lambda::Function")
    memories = {name: function["MemorySize"] for name, function in resources}

    def add(kind: str) -> float:
        return sum(value for id_, value in values.items() if id_[0] == kind)

    gb_seconds = sum(values[id_] / 1000 * memories[name] / 1024 for id_, name in FUNCTIONS.items())
    empty, sent = sum(values[f"q{n}"] for n in range(1, 6)), values["q6"]
    expected = {
        "Lambda": gb_seconds * prices.LAMBDA_GB_SECOND.unit_price + add("n") * prices.LAMBDA_REQUEST.unit_price,
        "API Gateway": add("a") * prices.API_REQUEST.unit_price,
        "DynamoDB": add("w") * prices.DYNAMODB_WRITE_UNIT.unit_price + add("r") * prices.DYNAMODB_READ_UNIT.unit_price,
        "SQS": (empty + sent * prices.SQS_REQUESTS) * prices.SQS_REQUEST.unit_price,
        "S3 storage": values["s1"] / 2**30 * prices.S3_STORAGE.unit_price * DAY / MONTH,
    }
    expressions = {row[0]["label"]: row[0] for row in rows if "expression" in row[0]}
    found = {label: evaluate(expressions[label]["expression"], values, DAY) for label in expected}
    if "US dollars" in expressions:
        expected["US dollars"] = sum(expected.values())
        parts = {expressions[label]["id"]: value for label, value in found.items()}
        found["US dollars"] = evaluate(expressions["US dollars"]["expression"], parts, DAY)
    return found, expected


@pytest.mark.parametrize("title", COST_WIDGETS)
def test_dollars_are_those_of_the_prices(title: str) -> None:
    rows = read_rows(title)
    found, expected = compute(rows)
    assert found == pytest.approx(expected)
    functions = {row[-1]["id"]: row[3] for row in rows if row[0] == "AWS/Lambda"}
    assert functions == FUNCTIONS | {f"n{id_[1:]}": name for id_, name in FUNCTIONS.items()}


def test_the_total_is_shown_once() -> None:
    total, by_day = (read_rows(title) for title in COST_WIDGETS)
    assert [row[-1]["label"] for row in total if row[-1].get("visible", True)] == ["US dollars"]
    assert {row[-1]["label"] for row in by_day if row[-1].get("visible", True)} == compute(by_day)[1].keys()


@pytest.mark.parametrize(
    ("old", "new"), [("*512+", "*256+"), ("0.0000133334", "0.0000166667"), ("0.625/", "0.125/"), ("3*FILL", "2*FILL")]
)
def test_other_numbers_are_noticed(old: str, new: str) -> None:
    rows = read_rows(COST_WIDGETS[0])
    for row in rows:
        if "expression" in row[-1]:
            row[-1]["expression"] = row[-1]["expression"].replace(old, new)
    found, expected = compute(rows)
    assert found != pytest.approx(expected)
