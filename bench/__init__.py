"""Benchmarks: `make bench` runs all of them, each beside its reference in the same run."""
