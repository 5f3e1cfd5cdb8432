"""What an ingest did, as values.

Belongs here: the report and its problems. Doesn't: doing it (`arrivals.ingest`), or what is kept of it
(`arrivals.ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from arrivals.announcement import Kind
from arrivals.states import State
from arrivals.visits import VisitConflict

MAX_PROBLEMS = 50
"""So many problems are listed in a report; all of them are in the ledger."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was not ingested, and why."""

    did: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingest did.

    Parameters
    ----------
    outcomes
        Rows by kind and new state.
    datasets, bytes
        Datasets that are in the Butler because of it, and the size of their files.
    exposures, visits
        Exposures of which raws came in, and visits that are defined because of them.
    conflicts
        Visits that the Butler has with another definition.
    problems
        What waits or was quarantined, the first of it.
    elapsed_s
        How long it took.
    """

    outcomes: Mapping[tuple[Kind, State], int] = MappingProxyType({})
    datasets: int = 0
    bytes: int = 0
    exposures: frozenset[int] = frozenset()
    visits: frozenset[int] = frozenset()
    conflicts: tuple[VisitConflict, ...] = ()
    problems: tuple[Problem, ...] = ()
    elapsed_s: float = 0.0

    def count(self, state: State) -> int:
        """Rows that reached a state, of all kinds."""
        return sum(count for (_, reached), count in self.outcomes.items() if reached is state)
