"""Real git, real git-lfs and a real LFS server (giftless), as `requirements/install.py` provides them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
GIT_LFS = ROOT / ".local/tools/git-lfs/usr/bin"
GIFTLESS = ROOT / ".local/venvs/giftless/bin/python"
_MOMENT = "2026-01-01T00:00:00Z"
# Nothing of whoever runs the tests: neither configuration nor credentials.
_ENVIRONMENT = {
    "PATH": os.pathsep.join([str(GIT_LFS), os.environ.get("PATH", os.defpath)]),
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Author",
    "GIT_AUTHOR_EMAIL": "author@example.com",
    "GIT_AUTHOR_DATE": _MOMENT,
    "GIT_COMMITTER_NAME": "Author",
    "GIT_COMMITTER_EMAIL": "author@example.com",
    "GIT_COMMITTER_DATE": _MOMENT,
    "LANG": "C.UTF-8",
}


def run_git(folder: Path, *arguments: str, data: bytes | None = None) -> str:
    """What git prints. Raises RuntimeError with its own words when it fails."""
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "gc.auto=0", *arguments],
        cwd=folder,
        env=_ENVIRONMENT,
        input=data,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode()


class ObjectReader:
    """`git cat-file --batch`: objects of a repository by any name that git knows. Safe to use from several threads."""

    def __init__(self, repository: Path) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"],
            cwd=repository,
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def read(self, name: str) -> tuple[str, str, bytes] | None:
        """(sha, type, content), None if there is no such object."""
        if "\n" in name:
            return None
        with self._lock:
            pipe_in, pipe_out = self._process.stdin, self._process.stdout
            assert pipe_in is not None
            assert pipe_out is not None
            pipe_in.write(name.encode() + b"\n")
            pipe_in.flush()
            head = pipe_out.readline().decode().rstrip("\n")
            if head.endswith((" missing", " ambiguous")):
                return None
            sha, kind, size = head.split(" ")
            content = pipe_out.read(int(size))
            pipe_out.read(1)
            return sha, kind, content

    def close(self) -> None:
        self._process.communicate()


class LfsServer:
    """giftless in a process of its own, which anybody may read and write. `storage` has `{owner}/{name}/{oid}`."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.endpoint = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Raises RuntimeError when it does not start."""
        options = {"storage_options": {"path": str(self.storage)}}
        configuration = {
            "AUTH_PROVIDERS": ["giftless.auth.allow_anon:read_write"],
            "LEGACY_ENDPOINTS": False,
            "TRANSFER_ADAPTERS": {"basic": {"options": options}},
            "PRE_AUTHORIZED_ACTION_PROVIDER": {"options": {"private_key": os.urandom(16).hex()}},
        }
        # waitress says where it listens once it does.
        program = "from giftless.wsgi_entrypoint import app; import waitress; s = waitress.create_server(app, "
        program += "listen='127.0.0.1:0', threads=8); print(s.effective_port, flush=True); s.run()"
        self._process = subprocess.Popen(
            [str(GIFTLESS), "-c", program],
            env=_build_environment({"GIFTLESS_CONFIG_STR": json.dumps(configuration)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("giftless did not start")
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _build_environment(more: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **more}


def find_missing_tools() -> list[str]:
    """What of git, git-lfs and giftless cannot be run here; `make setup` says why."""
    missing = [] if GIFTLESS.is_file() else ["giftless"]
    for name, command in (("git", ["--version"]), ("git-lfs", ["lfs", "version"])):
        try:
            run_git(Path(sys.prefix), *command)
        except (OSError, RuntimeError):
            missing.append(name)
    return missing
