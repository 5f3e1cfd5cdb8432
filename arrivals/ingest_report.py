"""What an ingest did, as values.

Belongs here: the report, its problems, and the lines that logs have of them. Doesn't: doing it (`arrivals.ingest`), or
what is kept of it (`arrivals.ledger`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from arrivals.announcement import Kind
from arrivals.causes import cause_of
from arrivals.states import State
from arrivals.visits import VisitConflict

MOST_CAUSES = 50
"""So many causes in each state are told apart in a report; all of them are in the ledger."""

OTHER_CAUSES = "other causes"


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows that were not ingested for one cause.

    Parameters
    ----------
    state, cause
        What they have in common; the cause as of `arrivals.causes.cause_of`.
    rows
        How many.
    did, reason
        Of the first of them.
    """

    state: State
    cause: str
    rows: int
    did: str
    reason: str

    def __str__(self) -> str:
        return f"{self.state} {self.did}{_and_more(self.rows)}: {self.reason}"


class Problems:
    """Counts rows that were not ingested, by state and cause; few states or causes never hide the others."""

    def __init__(self) -> None:
        self._found: dict[tuple[State, str], Problem] = {}
        self._causes: Counter[State] = Counter()

    def add(self, state: State, did: str, reason: str) -> None:
        """Count one row more.

        Parameters
        ----------
        state, did, reason
            The row's.
        """
        cause = cause_of(reason)
        if (state, cause) not in self._found and self._causes[state] >= MOST_CAUSES:
            cause, reason = OTHER_CAUSES, f"{OTHER_CAUSES}, such as: {reason}"
        known = self._found.get((state, cause))
        if known is None:
            self._causes[state] += 1
            self._found[state, cause] = Problem(state, cause, 1, did, reason)
        else:
            self._found[state, cause] = replace(known, rows=known.rows + 1)

    def all(self) -> tuple[Problem, ...]:
        """What was counted, in the order it was met."""
        return tuple(self._found.values())


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
        What waits or was quarantined, by cause.
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

    @property
    def conflict_lines(self) -> tuple[str, ...]:
        """What is to be said of visits that the Butler has with another definition, a line a cause."""
        by_cause: dict[str, list[VisitConflict]] = {}
        for conflict in self.conflicts:
            by_cause.setdefault(cause_of(conflict.what), []).append(conflict)
        return tuple(f"visit {some[0].visit}{_and_more(len(some))}: {some[0].what}" for some in by_cause.values())


def _and_more(rows: int) -> str:
    return f" and {rows - 1:,} more like it" if rows > 1 else ""
