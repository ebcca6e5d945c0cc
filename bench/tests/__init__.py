"""Tests of the benchmarks, and of the pages that they generate."""
