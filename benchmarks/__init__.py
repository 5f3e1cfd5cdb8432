"""How fast: a module a benchmark, each beside its yardstick in the same run.

Timed claims belong here, never in tests.
"""
