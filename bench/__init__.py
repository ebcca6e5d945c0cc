"""Benchmarks of the transfer path, on loopback servers. `make bench` runs them and writes docs/benchmarks.md."""
