"""Benchmarks on loopback servers. `make bench` runs them and writes docs/benchmarks.md."""
