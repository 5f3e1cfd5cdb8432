"""What has come: a Hermes message becomes a row of the ledger, then datasets and visits in the Butler.

Belongs here: reading messages, the ledger and its states, ingest and visit definition.
Doesn't: Dagster, or opening connections (`resources`).
"""
