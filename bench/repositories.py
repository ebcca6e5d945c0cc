"""Requests of an import of many small files from GitHub."""

import pickle
import tempfile
from collections import Counter
from pathlib import Path

from bench.counted_import import count_import, submit
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import TaskStatus
from tests.upstream.git_repository import Entry, RepositoryMaker
from tests.upstream.git_tools import LfsServer
from tests.upstream.github import LoopbackGitHub
from tests.upstream.github_source import open_github

_NAME = "bench/repository"


def _build_files(count: int) -> dict[str, Entry]:
    """Return a model with weights in Git LFS and `count` small files in a hundred folders."""
    small: dict[str, Entry] = {f"{i % 100:02}/{i:06}.json": f'{{"number": {i}}}'.encode() * 20 for i in range(count)}
    model: dict[str, Entry] = {
        "config.json": b"{}",
        "tokenizer.json": b"{} ",
        "pytorch_model.bin": pickle.dumps(bytes(9_000_000)),
    }
    return small | model


def count_repository(count: int) -> dict[str, int]:
    """Return requests and messages by name. Raises RuntimeError unless the import ends DONE."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LfsServer(Path(folder) / "lfs") as lfs,
        LoopbackGitHub(lfs) as github,
    ):
        maker = RepositoryMaker(Path(folder) / "repositories", lfs)
        github.add_repository(maker.make(_NAME, {"main": _build_files(count)}, lfs=["*.bin"]))
        counted = count_import(open_github(github), submit(Source.GITHUB, _NAME))
        if counted.task.status is not TaskStatus.DONE:
            raise RuntimeError(f"the import failed: {counted.task.error}")
        origins = Counter(record.origin for record in github.requests)
    calls = counted.usage.calls
    services = {name: {c: n for c, n in calls.items() if c.startswith(name)} for name in ("sqs", "dynamodb", "s3")}
    return {
        "GitHub REST calls": origins["api"],
        "raw content host, files": origins["raw"],
        "LFS batch calls": origins["lfs"],
        "LFS downloads": origins["media"],
        "queue messages": counted.messages.total(),
        **{call: number for counts in services.values() for call, number in sorted(counts.items())},
    }


def describe_repositories(counts: list[int]) -> str:
    """Return the section in Markdown, with a column for each count."""
    columns = [count_repository(count) for count in counts]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [f"| {name} | {' | '.join(f'{column.get(name, 0):,}' for column in columns)} |" for name in names]
    return f"""\
## Import of many small files from GitHub

This part counts the requests of one import and does not measure time. The import uses the loopback GitHub, the complete
pipeline, and the real adapters with moto.

| | {" | ".join(f"{count:,} files" for count in counts)} |
|:---|{"---:|" * len(counts)}
{"\n".join(rows)}"""
