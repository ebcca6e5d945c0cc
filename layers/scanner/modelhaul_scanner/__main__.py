"""`python -m modelhaul_scanner SECONDS`: read pickles and write opinions. Started by `modelhaul_scanner.process`."""

import resource
import sys

from modelhaul_scanner.judging import judge_pickles

_MAX_MEMORY = 320 * 1024 * 1024  # bytes of address space; a pickle of 4 MiB takes 120 MB
_MAX_SECONDS = 15.0  # per pickle, to leave time for the others

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    judge_pickles(sys.stdin.buffer, sys.stdout, min(float(sys.argv[1]), _MAX_SECONDS))
