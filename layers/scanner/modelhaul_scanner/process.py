"""Run the scanner in a separate process, so that a hostile pickle that breaks it does not stop the import."""

import ctypes
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from modelhaul.domain.gate import PickleOpinion, SecondOpinion
from modelhaul_scanner import LENGTH_BYTES

logger = logging.getLogger(__name__)

_LAYER = Path(__file__).parents[1]
_VARIABLES = ("PATH", "LD_LIBRARY_PATH")  # required to start Python in Lambda; the process gets no credentials
_PR_SET_DUMPABLE = 4  # https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html
_MAX_REASONS = 20
_MAX_REASON_LENGTH = 200  # characters


class ModelauditPickleScanner:
    """Implements `modelhaul.ports.pickle_scanner.PickleScanner`."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "modelhaul_scanner")) -> None:
        self._command = command

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        data = b"".join(len(pickle).to_bytes(LENGTH_BYTES) + pickle for pickle in pickles)
        opinions = dict(filter(None, map(_read_opinion, self._run(data, seconds).splitlines())))
        return [opinions.get(number, PickleOpinion(SecondOpinion.UNVERIFIED)) for number in range(len(pickles))]

    def _run(self, data: bytes, seconds: float) -> bytes:
        """Return the output of the process, even if it crashes or runs out of time.

        Pickles without an opinion in the output are recorded as unverified.
        """
        _protect_own_process()
        try:
            process = subprocess.run(  # noqa: S603 - the command does not depend on the input
                [*self._command, str(seconds)],
                input=data,
                capture_output=True,
                timeout=seconds,
                check=False,
                cwd=_LAYER,
                env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
            )
        except subprocess.TimeoutExpired as error:
            logger.info("pickle scanner ran out of time", extra={"seconds": seconds})
            return error.stdout or b""
        except OSError as error:
            logger.warning("pickle scanner not started", extra={"detail": str(error)})
            return b""
        if process.returncode:
            logger.warning(
                "pickle scanner crashed",
                extra={"exit_code": process.returncode, "stderr": process.stderr[-500:].decode(errors="replace")},
            )
        return process.stdout


def _protect_own_process() -> None:
    """In Lambda, deny the scanner, which runs as the same user, to read this process's environment, memory and files.

    Without this, it could read the function's credentials in /proc/PID/environ. It does not stop root.
    """
    if sys.platform == "linux" and "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _read_opinion(line: bytes) -> tuple[int, PickleOpinion] | None:
    """Return the pickle's number and its opinion, or None for an invalid line."""
    try:
        body = json.loads(line)
        number = int(body["number"])
        verdict, reasons = SecondOpinion(body["verdict"]), [str(reason) for reason in body["reasons"]]
    except (ValueError, KeyError, TypeError):
        return None
    printable = ("".join(c if c.isprintable() else "?" for c in reason)[:_MAX_REASON_LENGTH] for reason in reasons)
    return number, PickleOpinion(verdict, tuple(printable)[:_MAX_REASONS])
