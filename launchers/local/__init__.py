"""A BPS workflow service for one machine: `service.LocalService`, usable by plain ``bps submit``.

Belongs here: `jobs` decides what runs next, `store` remembers it on disk, `driver` runs it, `workflow` writes down what
BPS asked for, `service` answers ``bps``. The driver is a process of its own that outlives the one that submitted.
Doesn't: anything about releases, steps or Dagster. Nothing is imported here, so that the driver starts in no time.
"""
