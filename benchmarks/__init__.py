"""Benchmarks: speeds are given as ratios within one run, because the speed of a machine varies."""
