"""The commands `ls`, `show`, `get` and `rm`."""

import hashlib
import os
import random
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelhaul_cli.downloader import build_partial_name
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import (
    MODEL_ID,
    ApiServer,
    Fault,
    Response,
    create_problem_response,
    create_store_error_response,
)

FILES = {
    "config.json": b'{"a": 1}',
    "onnx/model.onnx": random.Random(1).randbytes(700_000),
    "model.safetensors": random.Random(2).randbytes(1_500_000),
    "empty.txt": b"",
}


def read_folder(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_models_are_listed(api: ApiServer, command_line: CommandLine) -> None:
    created = datetime.now(UTC) - timedelta(hours=3, minutes=59)
    api.add_model(FILES, created_at=created.isoformat(timespec="seconds"))
    outcome = command_line.run("ls", "--name", "BERT", "--source", "huggingface")
    assert outcome.code == 0
    head, row = outcome.out.splitlines()
    assert head.split() == ["ID", "SIZE", "AGE", "SOURCE", "REV", "COMMIT", "NAME"]
    assert row.split() == [MODEL_ID[:8], "2.2", "MB", "3h", "hf", "main", "86b5e09", "google-bert/bert-base-uncased"]
    assert head.index("SOURCE") == row.index("hf")
    assert api.requests[0].query == {"name": "BERT", "source": "HUGGINGFACE", "limit": "20"}


def test_model_shows_who_submitted_it(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    assert "submitter" not in command_line.run("show", MODEL_ID).out
    api.add_model(FILES, submitted_by="read-key:0123456789abcdef")
    assert "submitter read-key:0123456789abcdef\n" in command_line.run("show", MODEL_ID).out
    assert command_line.run("show", MODEL_ID, "--json").json["submitted_by"] == "read-key:0123456789abcdef"


def test_selection_is_shown_for_partial_models(api: ApiServer, command_line: CommandLine) -> None:
    selection = {"allow_patterns": ["*.json"], "ignore_patterns": ["onnx/*"], "weights": "safetensors"}
    api.add_model(FILES, selection=selection)
    options = "--allow *.json --ignore onnx/* --weights safetensors"
    assert f"bert-base-uncased ({options})\n" in command_line.run("ls").out
    assert f"selection {options}\n" in command_line.run("show", MODEL_ID).out


def add_models(api: ApiServer, *models: dict[str, Any]) -> list[str]:
    """Add models and return their IDs, which differ from the seventh digit on."""
    record = api.add_model({"config.json": b"{}"})
    whole = api.models.pop(MODEL_ID)
    ids = [f"6f1c9f{n:02}-0000-5000-8000-000000000001" for n in range(len(models))]
    for model_id, model in zip(ids, models, strict=True):
        api.models[model_id] = {**whole, **record, "model_id": model_id, **model}
    return ids


VERSIONS = (
    {"name": "team/first"},
    {"name": "team/second", "revision": "v1", "commit": "1" * 40},
    {"name": "team/second", "revision": "v2", "commit": "2" * 40},
    {"name": "team/second-large"},
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("team/first", 0),
        ("Team/First", 0),
        ("team/second@v1", 1),
        ("team/second@2222222", 2),
        ("team/second-large", 3),
        ("6f1c9f02", 2),
        ("6F1C9F02-0000", 2),
        ("6f1c9f03-0000-5000-8000-000000000001", 3),
    ],
)
def test_models_are_found_by_name_and_start_of_the_id(
    api: ApiServer, command_line: CommandLine, tmp_path: Path, text: str, number: int
) -> None:
    model_id = add_models(api, *VERSIONS)[number]
    assert command_line.run("show", text, "--json").json["model_id"] == model_id
    assert command_line.run("get", text, "--to", tmp_path / "m").code == 0
    assert (tmp_path / "m" / "config.json").read_bytes() == b"{}"
    assert command_line.run("rm", text, "--yes", "--json").json["model_id"] == model_id
    assert model_id not in api.models


def test_invalid_name_filter_is_named_by_its_option(api: ApiServer, command_line: CommandLine) -> None:
    fields = [{"field": "name", "message": "is too long"}]
    api.faults = [Fault("GET", "/models", response=create_problem_response(422, "invalid-fields", "", fields=fields))]
    assert "--name: is too long\n" in command_line.run("ls", "--name", "x").err


HEXADECIMAL = (
    {"name": "6f1c9f01"},
    {"name": "team/second", "revision": "v1", "commit": "1234567" + "1" * 33},
    {"name": "team/second", "revision": "1234567", "commit": "2" * 40},
    {"name": "team/second", "revision": "2" * 40, "commit": "2" * 40},
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("6f1c9f01", [0]),
        ("6f1c9f01-", [1]),
        ("team/second@1234567", [2]),
        ("team/second@12345671", [1]),
        ("team/second@" + "2" * 40, [2, 3]),
        ("team/second@2222222", [2, 3]),
    ],
)
@pytest.mark.parametrize("command", ["show", "rm --yes"])
def test_names_and_revisions_take_precedence_over_starts(
    api: ApiServer, command_line: CommandLine, command: str, text: str, numbers: list[int]
) -> None:
    ids = add_models(api, *HEXADECIMAL)
    document = command_line.run(*command.split(), text, "--json").json
    if len(numbers) == 1:
        assert document["model_id"] == ids[numbers[0]]
    else:
        assert document["error"]["candidates"] == [ids[number] for number in numbers]


@pytest.mark.parametrize("text", ["6f1c9f0", "6f1c", "team/second@123456", "team/seco"])
def test_short_starts_delete_nothing(api: ApiServer, command_line: CommandLine, text: str) -> None:
    api.models = {model_id: api.models[model_id] for model_id in add_models(api, *HEXADECIMAL)[1:2]}
    outcome = command_line.run("rm", text, "--yes")
    assert (outcome.code, len(api.models)) == (3, 1)
    assert "at least 8 characters of its ID or 7 of its commit are required" in outcome.err


@pytest.mark.parametrize(("text", "numbers"), [("team/second", [1, 2]), ("6f1c9f", [0, 1, 2, 3])])
@pytest.mark.parametrize("command", ["show", "get"])
def test_ambiguous_model_lists_the_candidates(
    api: ApiServer, command_line: CommandLine, command: str, text: str, numbers: list[int]
) -> None:
    ids = add_models(api, *VERSIONS)
    outcome = command_line.run(command, text)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{len(numbers)} models match '{text}':" in outcome.err
    shown = [line.split()[0] for line in outcome.err.splitlines() if line.startswith("6f1c9f")]
    assert shown == [ids[number][:8] for number in numbers]
    assert command_line.run(command, text, "--json").json["error"]["candidates"] == [ids[n] for n in numbers]
    assert len(api.models) == len(VERSIONS)


def test_missing_model_suggests_similar_ones(api: ApiServer, command_line: CommandLine) -> None:
    add_models(api, *VERSIONS)
    misspelt = command_line.run("show", "second")
    assert misspelt.code == 3
    assert "No imported model has the name or ID 'second'." in misspelt.err
    assert "Similar names: team/second, team/second-large." in misspelt.err
    unknown_revision = command_line.run("get", "team/second@v3")
    assert unknown_revision.code == 3
    assert "These versions of the model are imported:" in unknown_revision.err
    assert re.search(r"6f1c9f02 .* v2 +2222222 +team/second\n", unknown_revision.err)


def test_model_list_fits_80_columns(api: ApiServer, command_line: CommandLine) -> None:
    partial = {"selection": {"allow_patterns": ["*.json"], "weights": "safetensors"}}
    add_models(
        api,
        {"name": "google-bert/bert-base-uncased", "size": 438_000_000},
        {"name": "sentence-transformers/all-MiniLM-L6-v2", "source": "GITHUB", **partial},
        {"name": "my-model", "source": "LOCAL", "revision": "3" * 40, "commit": "3" * 40},
    )
    shown = command_line.show("ls", columns=80)
    assert max(map(len, shown)) <= 80
    assert shown[1].endswith("google-bert/bert-base-uncased")
    assert shown[3] == "  sentence-transformers/all-MiniLM-L6-v2 (--allow *.json --weights safetensors)"
    assert shown[4].split()[-2:] == ["3333333", "my-model"]
    add_models(api, {"name": "a/b", "revision": "feature/a-long-branch"})
    assert command_line.show("ls", columns=80)[1].split()[-3:] == ["feature/a-l…", "86b5e09", "a/b"]


def test_long_lists_are_read_in_pages(api: ApiServer, command_line: CommandLine) -> None:
    record = api.add_model(FILES)
    api.models = {str(n): {**record, "model_id": str(n)} for n in range(250)}
    outcome = command_line.run("ls", "--limit", "220", "--json")
    assert [m["model_id"] for m in outcome.json["models"]] == [str(n) for n in range(220)]
    assert outcome.json["more"] is True
    assert [r.query["limit"] for r in api.requests] == ["100", "100", "20"]
    assert "More results are available" in outcome.err
    whole = command_line.run("ls", "--limit", "1000", "--json").json
    assert (len(whole["models"]), whole["more"]) == (250, False)


@pytest.mark.parametrize("inline", [True, False])
def test_model_is_shown_with_its_files(api: ApiServer, command_line: CommandLine, inline: bool) -> None:
    record = api.add_model(FILES, inline=inline)
    outcome = command_line.run("show", MODEL_ID)
    assert outcome.code == 0
    assert f"location  {record['location']}" in outcome.out
    assert f"hub_id    {record['hub_id']}" in outcome.out
    assert "inspected clean" in outcome.out
    assert "chat template" in outcome.out
    assert hashlib.sha256(FILES["config.json"]).hexdigest() in outcome.out
    shown = command_line.run("show", MODEL_ID, "--json").json
    assert [f["path"] for f in shown["manifest"]["files"]] == list(FILES)
    assert {k: shown[k] for k in record} == record


def test_decision_of_the_policy_is_shown(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    warning = {"rule_id": "big", "reason": "Large models cost more.", "matched": ["size 2,200,000"]}
    policy = {"decision": "allow", "rule_id": "reviewed", "reason": "", "matched": [], "warnings": [warning]}
    api.models[MODEL_ID]["policy"] = policy
    out = command_line.run("show", MODEL_ID).out
    assert "policy    allow (rule reviewed)" in out
    assert "warning: Large models cost more. (rule big: size 2,200,000)" in out
    del policy["rule_id"]
    assert "policy    allow (default)" in command_line.run("show", MODEL_ID).out


def test_unknown_model_is_not_found(command_line: CommandLine) -> None:
    for command in (["show", "x"], ["get", "x"], ["rm", "x", "--yes"]):
        outcome = command_line.run(*command)
        assert (outcome.code, outcome.out) == (3, "")
        assert "Model not found." in outcome.err


def test_model_without_a_manifest_is_not_found(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    api.models[MODEL_ID] = {"model_id": MODEL_ID, "name": "a", "status": "IMPORTING"}
    outcome = command_line.run("get", MODEL_ID)
    assert outcome.code == 3
    assert "Only READY models can be shown and downloaded." in outcome.err


def test_files_are_downloaded_and_verified(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    outcome = command_line.run("get", MODEL_ID)
    assert outcome.code == 0, outcome.err
    assert outcome.out == "Downloaded and verified 4 files (2.2 MB) to bert-base-uncased.\n"
    assert read_folder(command_line.folder / "bert-base-uncased") == FILES
    again = command_line.run("get", MODEL_ID, "--json")
    (command_line.folder / "bert-base-uncased" / "empty.txt").unlink()
    repaired = command_line.run("get", MODEL_ID, "empty.txt", "config.json").out
    assert repaired == (
        "Downloaded and verified 1 file (0 bytes) to bert-base-uncased. 1 file was already up to date.\n"
    )
    assert again.json == {
        "folder": str(command_line.folder / "bert-base-uncased"),
        "fetched": 0,
        "kept": 4,
        "bytes": 0,
    }
    assert len(api.find("GET", "/store/")) == 3, "an empty file needs no request, and no file is downloaded twice"


def test_files_are_selected_by_path_or_pattern(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    outcome = command_line.run("get", MODEL_ID, "config.json", "onnx/*", "--to", tmp_path / "here" / "model")
    assert outcome.code == 0
    assert sorted(read_folder(tmp_path / "here" / "model")) == ["config.json", "onnx/model.onnx"]
    unmatched = command_line.run("get", MODEL_ID, "config.json", "*.bin", "--to", tmp_path / "none")
    assert unmatched.code == 3
    assert "'*.bin'" in unmatched.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["short", "cut", "response"])
def test_interrupted_download_is_resumed(api: ApiServer, command_line: CommandLine, tmp_path: Path, kind: str) -> None:
    api.add_model(FILES)
    slow = create_store_error_response(503, "SlowDown")
    api.faults = [Fault("GET", "safetensors$", kind, response=slow, keep=1_000_000, times=3)]  # type: ignore[arg-type]
    outcome = command_line.run("get", MODEL_ID, "--to", tmp_path / "m", "--parallel", "1")
    assert outcome.code == 0, outcome.err
    assert read_folder(tmp_path / "m") == FILES
    assert "100 %, 2.2 MB of 2.2 MB" in outcome.err, "retried bytes count once"
    if kind == "short":
        ranges = [r.headers.get("range") for r in api.find("GET", "/store/model.safetensors")]
        assert ranges[0] is None
        assert all(r and r > "bytes=0-" for r in ranges[1:])


def test_next_run_resumes_a_partial_file(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    folder = tmp_path / "m"
    content = FILES["model.safetensors"]
    folder.mkdir()
    partial = folder / build_partial_name("model.safetensors", hashlib.sha256(content).hexdigest())
    partial.write_bytes(content[:400_000])
    other = folder / ".model.safetensors.0123456789abcdef.partial"
    other.write_bytes(b"of another content")
    outcome = command_line.run("get", MODEL_ID, "model.safetensors", "--to", folder)
    assert outcome.code == 0, outcome.err
    assert (folder / "model.safetensors").read_bytes() == content
    assert api.find("GET", "/store/")[0].headers["range"] == "bytes=400000-"
    assert not partial.exists()


@pytest.mark.parametrize("character", ["模", "é", "a"])
def test_long_names_of_any_script_are_downloaded(
    api: ApiServer, command_line: CommandLine, tmp_path: Path, character: str
) -> None:
    """File systems limit names to 255 bytes: 80 CJK characters have 240."""
    name = character * (240 // len(character.encode())) + ".bin"
    api.add_model({name: b"content"})
    outcome = command_line.run("get", MODEL_ID, name, "--to", tmp_path / "m")
    assert outcome.code == 0, outcome.err
    assert read_folder(tmp_path / "m")[name] == b"content"


def test_files_with_equal_content_have_different_partial_files() -> None:
    first, second = (build_partial_name("x" * 100 + last, "0" * 64) for last in "ab")
    assert first != second
    assert max(len(build_partial_name(name, "f" * 64).encode()) for name in ("模" * 85, "x" * 255)) <= 102


def test_wrong_bytes_are_discarded(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    api.files["config.json"] = b'{"a": 2}'
    folder = tmp_path / "m"
    outcome = command_line.run("get", MODEL_ID, "config.json", "--to", folder)
    assert outcome.code == 6
    assert "The SHA-256 of config.json does not match the manifest." in outcome.err
    assert all(content == b"" for content in read_folder(folder).values())
    assert not (folder / "config.json").exists()


def test_damaged_partial_file_is_downloaded_again(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    content = FILES["model.safetensors"]
    (tmp_path / "m").mkdir()
    partial = tmp_path / "m" / build_partial_name("model.safetensors", hashlib.sha256(content).hexdigest())
    for left in (b"x" * 1000, content + b"more"):
        partial.write_bytes(left)
        assert command_line.run("get", MODEL_ID, "model.safetensors", "--to", tmp_path / "m").code == 0
        assert (tmp_path / "m" / "model.safetensors").read_bytes() == content
        (tmp_path / "m" / "model.safetensors").unlink()


def test_changed_file_is_replaced(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes(b'{"a": 3}')
    assert command_line.run("get", MODEL_ID, "config.json", "--to", tmp_path / "m").code == 0
    assert (tmp_path / "m" / "config.json").read_bytes() == FILES["config.json"]


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil", "a\\b"])
def test_unsafe_paths_are_rejected(api: ApiServer, command_line: CommandLine, tmp_path: Path, path: str) -> None:
    api.add_model({"config.json": b"{}", path: b"evil"})
    outcome = command_line.run("get", MODEL_ID, "--to", tmp_path / "m")
    assert outcome.code == 2
    assert not (tmp_path / "m").exists()


def test_symbolic_link_out_of_the_destination_is_rejected(
    api: ApiServer, command_line: CommandLine, tmp_path: Path
) -> None:
    api.add_model(FILES)
    (tmp_path / "m").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m" / "onnx").symlink_to(tmp_path / "elsewhere")
    assert command_line.run("get", MODEL_ID, "onnx/model.onnx", "--to", tmp_path / "m").code == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_insecure_presigned_urls_are_rejected(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    api.faults = [
        Fault("GET", "/files/", response=Response(302, headers={"Location": "http://example.com/x"}), times=100)
    ]
    outcome = command_line.run("get", MODEL_ID, "config.json", "--to", tmp_path / "m")
    assert outcome.code == 2
    assert "example.com" in outcome.err


def test_unwritable_destination_is_a_local_io_error(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    (tmp_path / "file").write_bytes(b"")
    outcome = command_line.run("get", MODEL_ID, "--to", tmp_path / "file")
    assert outcome.code == 1
    assert "Local I/O error." in outcome.err


def test_model_is_deleted(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    outcome = command_line.run("rm", MODEL_ID, "--yes")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"Deleted {MODEL_ID}.\n")
    assert api.models == {}
    api.add_model(FILES)
    api.deletion = Response(202)
    large = command_line.run("rm", MODEL_ID, "--yes", "--json")
    assert large.json == {"model_id": MODEL_ID, "deleted": True, "in_background": True}
    assert "in the background" in large.err


def test_deletion_with_a_lost_response_succeeds(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    api.faults = [Fault("DELETE", "", "lost")]
    assert command_line.run("rm", MODEL_ID, "--yes").code == 0


def test_deletion_without_a_terminal_requires_yes(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    process = command_line.start("rm", MODEL_ID)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Confirmation required, but stdin is not a terminal." in err
    assert "Pass --yes to delete the model without confirmation." in err
    assert list(api.models) == [MODEL_ID]


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 130), ("", 130)])
def test_deletion_asks_for_confirmation(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    api.add_model(FILES)
    leader, follower = os.openpty()
    try:
        os.write(leader, typed.encode() or b"\x04")
        with os.fdopen(follower, "r") as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            outcome = command_line.run("rm", MODEL_ID)
    finally:
        os.close(leader)
    assert outcome.code == code
    assert "Delete google-bert/bert-base-uncased (2.2 MB) and its files permanently?" in outcome.err
    assert bool(api.models) == bool(code)
