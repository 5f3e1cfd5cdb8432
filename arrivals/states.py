"""The life of a message in the ledger: its states, and the one table of what may follow what.

Belongs here: the states and the pure questions about them. Doesn't: storing them (`arrivals.ledger`), or deciding which
comes next (`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a message stands."""

    RECEIVED = "received"
    """In the ledger, to be ingested at the next opportunity."""

    WAITING = "waiting"
    """Can't be ingested yet; the reason names what for, and something wakes it: what it waits for, or a time."""

    INGESTED = "ingested"
    """What it announced is in the Butler."""

    DUPLICATE = "duplicate"
    """The same file had been announced before, and is in the Butler."""

    QUARANTINED = "quarantined"
    """It can't become a dataset, and the reason says why; an operator may have it tried again."""


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.RECEIVED: frozenset({State.WAITING, State.INGESTED, State.DUPLICATE, State.QUARANTINED}),
        State.WAITING: frozenset(
            {State.RECEIVED, State.WAITING, State.INGESTED, State.DUPLICATE, State.QUARANTINED},
        ),
        State.QUARANTINED: frozenset({State.RECEIVED}),
        State.INGESTED: frozenset(),
        State.DUPLICATE: frozenset(),
    }
)
"""What may follow each state."""

FIRST_STATES = frozenset({State.RECEIVED, State.QUARANTINED})
"""Where a message begins: understood, or not."""

UNFINISHED = frozenset({State.RECEIVED, State.WAITING})
"""States that the platform will do something about by itself."""


def may_become(state: State) -> frozenset[State]:
    """The states from which ``state`` can be reached in one step."""
    return frozenset(before for before, after in TRANSITIONS.items() if state in after)
