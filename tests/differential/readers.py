"""Real unpicklers in a separate process, which is restarted if a stream terminates it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from modelhaul.inspection.pickles.allowed_imports import ALLOWED

PROGRAM = Path(__file__).with_name("recording_unpickler.py")


class RecordingUnpickler:
    """The unpicklers of C, Python and joblib. `deaths` is the number of streams that terminated the process."""

    def __init__(self) -> None:
        self._process = self._start()
        self.deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, stream: bytes) -> list[str] | None:
        """Return the requested imports that are not allowed, as `module name`; None if the process was terminated."""
        (answer,) = self.ask_all([stream])
        return answer

    def ask_all(self, streams: Sequence[bytes]) -> list[list[str] | None]:
        """Return the same for each of a few streams, whose results must fit into a pipe."""
        answers: list[list[str] | None] = []
        while len(answers) < len(streams):
            self._write(streams[len(answers) :])
            while len(answers) < len(streams):
                answer = self._read()
                answers.append(answer)
                if answer is None:
                    self._stop()
                    self._process = self._start()
                    self.deaths += 1
                    break
        return answers

    def _write(self, streams: Sequence[bytes]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"".join(len(stream).to_bytes(4, "little") + stream for stream in streams))
            self._process.stdin.flush()

    def _read(self) -> list[str] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        # Nothing can be imported from a module without a name.
        return [name for name in json.loads(line) if not name.startswith(" ")]

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps([[m, n] for m, names in ALLOWED.items() for n in names]).encode() + b"\n")
        process.stdin.flush()
        return process

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
