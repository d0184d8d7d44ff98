"""Load on a running system, and what it did with it: used by the demo and the benchmarks."""
