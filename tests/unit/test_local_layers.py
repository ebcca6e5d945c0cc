"""The script that builds the layers for `sam build`, and the built layers."""

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from layers.build_layer import BOTOCORE_SERVICES, PACKAGES

LAYERS = Path(__file__).resolve().parents[2] / "layers"
UNPACKED_LIMIT = 250_000_000  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_UNCHECKED_HASH = 0b01  # https://peps.python.org/pep-0552/
CLIENTS = """
import sys
from botocore.session import get_session
session = get_session()
for service in sys.argv[1:]:
    for region in ("us-east-1", "eu-central-2", "us-gov-west-1", "cn-north-1"):
        client = session.create_client(service, region_name=region)
        print(service, client.meta.endpoint_url)
        if service == "s3":
            url = client.generate_presigned_url("get_object", {"Bucket": "models", "Key": "key"})
            print(url.partition("?")[0])
    model = client.meta.service_model
    for name in model.operation_names:
        operation = model.operation_model(name)
        print(name, *(shape and shape.members for shape in (operation.input_shape, operation.output_shape)))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that Lambda mounts as /opt/python."""
    folder = tmp_path_factory.mktemp("layers")
    for layer in PACKAGES:
        command = [sys.executable, str(LAYERS / "build_layer.py"), layer, str(folder / layer)]
        subprocess.run(command, env={**os.environ, "MODELHAUL_ARCHITECTURE": "host"}, check=True)
    return {layer: folder / layer / "python" for layer in PACKAGES}


NAMES = ["core", "sources", "scanner"]


@pytest.mark.parametrize("layer", NAMES)
def test_layer_without_requirements_is_not_built(layer: str, tmp_path: Path) -> None:
    script = tmp_path / "build_layer.py"
    script.write_bytes((LAYERS / "build_layer.py").read_bytes())
    (tmp_path / layer).mkdir()

    result = subprocess.run(
        [sys.executable, script, layer, tmp_path / "artifacts"], capture_output=True, text=True, check=False
    )

    assert result.returncode != 0
    assert "requirements.txt is missing" in result.stderr
    assert not (tmp_path / "artifacts").exists()


def test_unknown_architecture_is_rejected(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, LAYERS / "build_layer.py", "core", tmp_path / "artifacts"],
        env={**os.environ, "MODELHAUL_ARCHITECTURE": "amd64"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr == "'amd64' is no processor that layers are built for: arm64, x86_64\n"
    assert not (tmp_path / "artifacts").exists()


def test_packages_belong_to_one_layer() -> None:
    names = [
        line.partition("==")[0]
        for layer in NAMES
        for line in (LAYERS / layer / "requirements.txt").read_text().splitlines()
        if "==" in line
    ]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_modules_are_compiled_with_unchecked_hashes(built: dict[str, Path]) -> None:
    modules = [path for folder in built.values() for path in folder.rglob("*.py")]
    assert len(modules) > 500
    for module in modules:
        compiled = Path(cache_from_source(str(module))).read_bytes()
        assert int.from_bytes(compiled[4:8], "little") == _UNCHECKED_HASH, module


@pytest.mark.slow
def test_layers_contain_only_required_files(built: dict[str, Path]) -> None:
    core, sources = built["core"], built["sources"]
    assert {path.name for path in (core / "botocore" / "data").iterdir() if path.is_dir()} == BOTOCORE_SERVICES
    assert not list(core.glob("botocore/data/*/*/examples-*"))
    assert not list(sources.glob("hf_xet*"))
    assert not [path for folder in built.values() for path in [*folder.glob("bin"), *folder.glob("*/tests")]]


@pytest.mark.slow
def test_layers_fit_into_the_size_limit(built: dict[str, Path]) -> None:
    sizes = [path.stat().st_size for folder in built.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(sizes) < UNPACKED_LIMIT / 2


def describe_clients(folder: Path | None) -> str:
    """Return a description of the botocore clients built from the data in `folder`, or in this environment for None."""
    child = subprocess.run(
        [sys.executable, "-c", CLIENTS, *sorted(BOTOCORE_SERVICES)],
        env={"PYTHONPATH": str(folder) if folder else "", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return child.stdout


@pytest.mark.slow
def test_stripped_botocore_data_creates_the_same_clients(built: dict[str, Path]) -> None:
    clients = describe_clients(built["core"])
    assert "PutObject" in clients
    assert "https://models.s3.cn-north-1.amazonaws.com.cn/key" in clients
    assert clients == describe_clients(None)
