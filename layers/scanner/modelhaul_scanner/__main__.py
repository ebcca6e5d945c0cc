"""`python -m modelhaul_scanner SECONDS`: pickles in, opinions out. Started by `modelhaul_scanner.process`."""

import resource
import sys

from modelhaul_scanner.judging import judge_pickles

_MEMORY = 320 * 1024 * 1024  # bytes of address space; 4 MiB of pickle take 120 MB
_MAX_LENGTH = 15.0  # seconds for one pickle, so that it leaves time for the others

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    judge_pickles(sys.stdin.buffer, sys.stdout, min(float(sys.argv[1]), _MAX_LENGTH))
