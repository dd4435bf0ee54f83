"""The benchmarks' own arithmetic and load generator."""
