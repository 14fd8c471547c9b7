"""Comparing runs: groups, fairness, traps, verdicts, and what a set of runs says. No torch."""
