"""Benchmarks: our tables, the field's, and two yardsticks, side by side in one run. See README.md."""
