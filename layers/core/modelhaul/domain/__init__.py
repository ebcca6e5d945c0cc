"""Models, tasks, files, digests, names, keys and errors."""
