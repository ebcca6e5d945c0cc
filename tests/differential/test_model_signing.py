"""Signatures of this project, as the reference verifier and the command line judge a folder: both alike."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelhaul.domain.models import Model
from modelhaul_cli.errors import VerificationError
from modelhaul_cli.signatures import read_signature, verify_folder
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.signing_key import LocalSigningKey
from tests.model_signing import is_accepted, needs_model_signing
from tests.weights import wrap_weights

# Each judgment starts the reference verifier, which takes half a second or more.
pytestmark = [pytest.mark.slow, needs_model_signing]

FILES = {
    ".gitattributes": b"*.bin filter=lfs",
    ".github/workflows/check.yml": b"on: push",
    ".gitignore": b"*.tmp",
    "nested/.gitattributes": b"not in the root",
    ".hidden": b"no file of git",
    "config.json": b'{"a": 1}',
    "model.safetensors": wrap_weights(b"weights" * 3000),
    "empty.txt": b"",
    # In another order by path than by string: "-" sorts before "/", and "a" before "a.b".
    "a/b.txt": b"1",
    "a-b.txt": b"2",
    "a.txt": b"3",
    "a/b/c.txt".replace("b/c", "c/d"): b"4",
    "nested/deeper/name with spaces.txt": b"5",
    "nested/日本語-é-ü.txt": b"6",
    "nested/emoji-🤗.json": b"{}",
    "nested/percent%20+&'.txt": b"7",
}
NAME = "google-bert/bert-base-uncased"


@dataclass
class Published:
    """A signed model, as a user has downloaded it."""

    folder: Path
    signature: Path
    public_key: Path

    def judge(self) -> bool:
        """Return whether the folder is accepted. Both verifiers must agree."""
        try:
            model = read_signature(self.signature.read_bytes(), self.public_key.read_bytes())
            verify_folder(self.folder, model, excluded=self.signature, concurrency=2)
            own = True
        except VerificationError:
            own = False
        assert own is is_accepted(self.folder, self.signature, self.public_key)
        return own


def publish(folder: Path, key: LocalSigningKey) -> Published:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": FILES}}), signing_key=key)
    deployment.submit(NAME)
    deployment.run()
    (task,) = map(deployment.find_task, deployment.submitted)
    model = deployment.database.models.find_model(task.model_ids[0])
    assert isinstance(model, Model)
    assert model.signature is not None
    bundle = deployment.catalog.read_signature(model.model_id).text
    assert bundle is not None
    published = Published(folder / "model", folder / "model.sig", folder / "key.pem")
    for path, content in FILES.items():
        target = published.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    published.signature.write_text(bundle)
    published.public_key.write_text(model.signature.public_key)
    return published


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("original"), LocalSigningKey())


@pytest.fixture
def published(original: Published, tmp_path: Path) -> Published:
    shutil.copytree(original.folder.parent, tmp_path, dirs_exist_ok=True)
    return Published(tmp_path / "model", tmp_path / "model.sig", tmp_path / "key.pem")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_downloaded_model_is_accepted(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    assert publish(tmp_path, LocalSigningKey(curve)).judge()


def write(path: str, content: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    return change


ACCEPTED: dict[str, Callable[[Path], object]] = {
    "git files change": write(".gitattributes", b"changed"),
    "git files are missing": lambda folder: shutil.rmtree(folder / ".github"),
    "git directory is added": write(".git/config", b"[core]"),
    "empty directory is added": lambda folder: (folder / "new").mkdir(),
    "times change": lambda folder: os.utime(folder / "config.json", (0, 0)),
}
REFUSED: dict[str, Callable[[Path], object]] = {
    "changed": write("config.json", b'{"a": 2}'),
    "one bit of weights": write("model.safetensors", FILES["model.safetensors"][:-1] + b"\x00"),
    "emptied": write("nested/emoji-🤗.json", b""),
    "missing": lambda folder: (folder / "nested/日本語-é-ü.txt").unlink(),
    "missing empty file": lambda folder: (folder / "empty.txt").unlink(),
    "missing directory": lambda folder: shutil.rmtree(folder / "nested"),
    "added": write("modeling.py", b"import os"),
    "added hidden file": write(".cache/huggingface/download/config.json.metadata", b"x"),
    "added empty file": write("new.txt", b""),
    "added git file in a directory": write("a/.gitignore", b"x"),
    "swapped": lambda folder: swap(folder / "a.txt", folder / "a-b.txt"),
    "renamed": lambda folder: (folder / "a.txt").rename(folder / "A.txt"),
    "file instead of a directory": lambda folder: (shutil.rmtree(folder / "a"), (folder / "a").write_bytes(b"1")),
    "link to the same content": lambda folder: replace_by_link(folder / "a.txt", folder / "a/b.txt"),
    "link at an ignored path": lambda folder: replace_by_link(folder / ".gitattributes", folder / "a.txt"),
    "link to a directory": lambda folder: (folder / "linked").symlink_to(folder / "nested"),
    "dangling link": lambda folder: (folder / "linked").symlink_to(folder / "nowhere"),
    "hard link to the signature": lambda folder: os.link(folder.parent / "model.sig", folder / "adapter_config.json"),
    "named pipe": lambda folder: os.mkfifo(folder / "pipe"),
}


def swap(first: Path, second: Path) -> None:
    first_content, second_content = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_content)
    second.write_bytes(first_content)


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_change_without_effect_is_accepted(published: Published, change: Callable[[Path], object]) -> None:
    change(published.folder)
    assert published.judge()


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_changed_folder_is_refused(published: Published, change: Callable[[Path], object]) -> None:
    change(published.folder)
    assert not published.judge()


def test_signature_in_the_folder_is_not_compared(published: Published) -> None:
    moved = Published(published.folder, published.folder / "model.sig", published.public_key)
    shutil.move(published.signature, moved.signature)
    assert moved.judge()


def test_key_of_another_stack_is_refused(published: Published) -> None:
    published.public_key.write_text(LocalSigningKey().read_public_key().pem)
    assert not published.judge()


def test_key_with_other_line_breaks_is_the_same_key(published: Published) -> None:
    published.public_key.write_text(published.public_key.read_text().replace("\n", "\r\n"))
    assert published.judge()


@pytest.mark.parametrize("part", ["payload", "signature", "hint"])
def test_changed_signature_file_is_refused(published: Published, part: str) -> None:
    bundle = json.loads(published.signature.read_bytes())
    envelope = bundle["dsseEnvelope"]
    if part == "payload":
        envelope["payload"] = "e30="
    elif part == "signature":
        envelope["signatures"][0]["sig"] = "MAYCAQECAQE="
    else:
        bundle["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(b"other").hexdigest()
    published.signature.write_text(json.dumps(bundle))
    assert not published.judge()


def test_folders_of_hub_clients_need_the_documented_options(published: Published) -> None:
    """See docs/signatures.md."""
    metadata = published.folder / ".cache/huggingface/download/config.json.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_bytes(b"x")
    verify = (published.signature, published.public_key)
    assert not is_accepted(published.folder, *verify)
    assert is_accepted(published.folder, *verify, "--ignore-paths", published.folder / ".cache")

    shutil.rmtree(published.folder / ".cache")
    blob = published.folder.parent / "blob"
    (published.folder / "config.json").rename(blob)
    (published.folder / "config.json").symlink_to(blob)
    assert not is_accepted(published.folder, *verify)
    assert is_accepted(published.folder, *verify, "--allow_symlinks")
