"""Benchmarks: each number of the project beside its target. `python -m bench --list` tells what there is."""
