"""Measurements: `make bench` runs them all, each against what it is measured beside in the same run."""
