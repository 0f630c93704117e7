"""Benchmarks: measurements with goals and ratios, run by `make bench`. None is a timed test.

Each starts what it needs with a data folder and ports of its own; two sides of a ratio run in turn in one run.
"""
