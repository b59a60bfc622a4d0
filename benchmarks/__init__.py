"""Measurements of what prefork promises, with its peers beside it. See docs/benchmarks.md."""
