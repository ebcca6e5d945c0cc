"""A second opinion on pickles, by modelaudit-picklescan, in a process of its own."""

LENGTH_BYTES = 8
"""Of the number, big-endian, before each pickle on its way into the process: the pickle's length."""
