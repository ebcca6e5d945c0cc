"""The scanner's own process: whatever a hostile pickle does to it, the import goes on."""

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

_PLACE = Path(__file__).parents[1]
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH")  # what a Python of Lambda needs to start; no credentials
_MAX_REASONS = 20
_MAX_REASON = 200  # characters


class ModelauditPickleScanner:
    """Implements `modelhaul.ports.pickle_scanner.PickleScanner`."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "modelhaul_scanner")) -> None:
        self._command = command

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        told = b"".join(len(pickle).to_bytes(LENGTH_BYTES) + pickle for pickle in pickles)
        opinions = dict(filter(None, map(_read_opinion, self._run(told, seconds).splitlines())))
        return [opinions.get(number, PickleOpinion(SecondOpinion.UNVERIFIED)) for number in range(len(pickles))]

    def _run(self, told: bytes, seconds: float) -> bytes:
        """What was answered until the process ended, by itself or not."""
        try:
            ended = subprocess.run(  # noqa: S603 - nothing of it comes from outside
                [*self._command, str(seconds)],
                input=told,
                capture_output=True,
                timeout=seconds,
                check=False,
                cwd=_PLACE,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            )
        except subprocess.TimeoutExpired as error:
            logger.info("no time for the second opinion on all pickles; the others are recorded as unverified")
            return error.stdout or b""
        except OSError as error:
            logger.warning("no second opinion on pickles, which are recorded as unverified: %s", error)
            return b""
        if ended.returncode:
            logger.warning(
                "the second opinion on pickles broke off; the others are recorded as unverified",
                extra={"exit_code": ended.returncode, "stderr": ended.stderr[-500:].decode(errors="replace")},
            )
        return ended.stdout


def _read_opinion(line: bytes) -> tuple[int, PickleOpinion] | None:
    """With the pickle's number."""
    try:
        told = json.loads(line)
        number = int(told["number"])
        verdict, reasons = SecondOpinion(told["verdict"]), [str(reason) for reason in told["reasons"]]
    except (ValueError, KeyError, TypeError):
        return None
    shown = ("".join(c if c.isprintable() else "?" for c in reason)[:_MAX_REASON] for reason in reasons)
    return number, PickleOpinion(verdict, tuple(shown)[:_MAX_REASONS])
