"""Pictures of a release that a person can read; one module a family, each a function of tables or arrays.

Belongs here: drawing, and reading what a drawing needs. Doesn't: computing a metric or a verdict.
"""
