"""Dependencies point inward: the domain knows no AWS, no framework and no source."""

import ast
from pathlib import Path

import pytest

LAYERS = Path(__file__).parents[2] / "layers"
PACKAGE = LAYERS / "core" / "modelhaul"
EDGES = {"documenting", "http", "logs", "settings", "swagger", "wiring", "worker"}
DOMAIN = sorted(
    p for p in PACKAGE.rglob("*.py") if p.stem not in EDGES and "adapters" not in p.relative_to(PACKAGE).parts
)
PACKAGES_BELOW = {"archives": {"inspection"}, "inspection": set()}
"""What a package does not import, besides the steps and the edges."""
FORBIDDEN = {
    "boto3",
    "botocore",
    "pynamodb",
    "aws_lambda_powertools",
    "requests",
    "huggingface_hub",
    "modelhaul_sources",
    "modelhaul_scanner",
    "modelaudit_picklescan",
}


def list_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", DOMAIN, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_the_domain_imports_no_technology(path: Path) -> None:
    imports = list_imports(path)
    assert not {name.split(".")[0] for name in imports} & FORBIDDEN
    assert not [n for n in imports if n.startswith(("modelhaul.adapters", *(f"modelhaul.{edge}" for edge in EDGES)))]


def test_only_wiring_builds_adapters() -> None:
    users = {
        path.relative_to(LAYERS.parent).as_posix()
        for path in [*LAYERS.rglob("*.py"), *(LAYERS.parent / "functions").rglob("*.py")]
        if "adapters" not in path.parts and any(n.startswith("modelhaul.adapters") for n in list_imports(path))
    }
    assert users == {"layers/core/modelhaul/wiring.py"}


def test_sources_know_the_domain_and_not_the_edges() -> None:
    for path in (LAYERS / "sources" / "modelhaul_sources").glob("*.py"):
        ours = {name for name in list_imports(path) if name.startswith("modelhaul.")}
        assert ours <= {
            "modelhaul.choosing",
            "modelhaul.digest",
            "modelhaul.errors",
            "modelhaul.model",
            "modelhaul.ports",
            "modelhaul.reading",
        }, path


STEPS = {
    "archive_intake",
    "closing",
    "deleting",
    "intake",
    "planning",
    "publishing",
    "retrying",
    "sweeping",
    "transfer",
}


@pytest.mark.parametrize(("package", "above"), PACKAGES_BELOW.items())
def test_packages_import_only_what_is_below_them(package: str, above: set[str]) -> None:
    modules = sorted((PACKAGE / package).glob("*.py"))
    assert modules, package
    forbidden = tuple(f"modelhaul.{name}" for name in STEPS | above)
    for path in modules:
        assert not [name for name in list_imports(path) if name.startswith(forbidden)], path
