"""What import-linter does not see: handlers, which are in no package. Its contracts are in pyproject.toml."""

import ast
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).parents[2] / "functions"
HANDLERS = sorted(FUNCTIONS.glob("*/*.py"))
ALLOWED = ("modelhaul.wiring", "modelhaul.settings", "modelhaul.entrypoints", "modelhaul.domain", "modelhaul.catalog")


def list_imports(path: Path) -> set[str]:
    """Full names of all that the module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.parent.name)
def test_a_handler_imports_entrypoints_and_what_its_signature_names(path: Path) -> None:
    ours = {name for name in list_imports(path) if name.startswith("modelhaul")}
    assert ours
    assert not {name for name in ours if not name.startswith(ALLOWED)}


def test_every_function_has_a_handler() -> None:
    assert {path.parent for path in HANDLERS} == {folder for folder in FUNCTIONS.iterdir() if any(folder.glob("*.py"))}
    assert len(HANDLERS) > 10
