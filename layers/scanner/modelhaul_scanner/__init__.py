"""Scan pickles with modelaudit-picklescan in a separate process, for a second opinion."""

LENGTH_BYTES = 8
"""Size of the big-endian number that precedes each pickle in the process's input: the length of the pickle."""
