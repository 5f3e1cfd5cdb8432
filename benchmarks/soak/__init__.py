"""Long runs in which things are broken on purpose: a module a soak, and what soaks share.

Belongs here: what `make soak NAME=x` runs, and its judgement. Doesn't: measuring speed (`benchmarks`), or starting
servers (`services`).
"""
