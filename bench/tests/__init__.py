"""Tests of the benchmarks and their generated pages."""
