"""Real models and data for the demo, the benchmarks and the tests. Not installed: run from a checkout."""
