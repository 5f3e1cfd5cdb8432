"""What must come out: for each message a state and a reason, for each file one dataset, and nothing else.

Belongs here: judging values, purely. Doesn't: where they are read (`benchmarks.soak.evidence`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from arrivals.states import State
from benchmarks.soak.broken import WAYS
from benchmarks.soak.messages import Messages

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """What the ledger says of one message."""

    partition: int
    offset: int
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, and how it was kept.

    Parameters
    ----------
    promise
        What was to be.
    checked
        How it was looked at, and how many things were.
    violations
        How many of them are otherwise.
    examples
        The first few of those.
    """

    promise: str
    checked: str
    violations: int
    examples: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether nothing is otherwise."""
        return self.violations == 0


class Oracle:
    """Knows what must come out of a soak's messages.

    Parameters
    ----------
    messages
        All that were published.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._population = messages.population
        self._positions = messages.by_partition()

    def judge_rows(self, rows: Iterable[Row]) -> list[Verdict]:
        """Compare the ledger's rows with the messages, each with its own."""
        population = self._population
        seen: set[tuple[int, int]] = set()
        twice: list[str] = []
        foreign: list[str] = []
        wrong: list[str] = []
        outcomes: dict[int, Counter[State]] = defaultdict(Counter)
        for row in rows:
            where = f"{row.partition}/{row.offset}"
            if (row.partition, row.offset) in seen:
                twice.append(where)
                continue
            seen.add((row.partition, row.offset))
            positions = self._positions.get(row.partition, [])
            if row.offset >= len(positions):
                foreign.append(where)
                continue
            number = int(population.order[positions[row.offset]])
            slot = population.slot(number)
            if slot.is_event:
                foreign.append(f"{where}: an event that announces no file has a row")
            elif slot.way is None:
                outcomes[number][row.state] += 1
            else:
                way = WAYS[slot.way]
                if row.state not in way.states or not re.search(way.reason, row.reason):
                    wrong.append(f"{where}: {way.name}: {row.state}, {row.reason!r}")
        missing = self._rows_expected() - len(seen) + len(foreign)
        lost, repeated = self._judge_good(outcomes)
        return [
            _verdict("each message has its row", f"{len(seen):,} rows by partition and offset", max(missing, 0)),
            _verdict("no message has two rows", f"{len(seen):,} rows by partition and offset", twice),
            _verdict("no row is of anything else", f"{len(seen):,} rows by partition and offset", foreign),
            _verdict("each good file is ingested once", f"{len(outcomes):,} DIDs by their rows", lost),
            _verdict("each repetition is known as one", f"{population.duplicated:,} repeated messages", repeated),
            _verdict(
                "each broken message has its state and its reason",
                f"{population.broken:,} rows in {population.ways} ways to be broken",
                wrong,
            ),
        ]

    def judge_datasets(self, found: Iterable[UUID]) -> list[Verdict]:
        """Compare the Butler's datasets with those that the good files hold."""
        counts = Counter(found)
        expected = self.datasets()
        missing = [str(dataset) for dataset in expected - counts.keys()]
        foreign = [str(dataset) for dataset in counts.keys() - expected]
        twice = [str(dataset) for dataset, count in counts.items() if count > 1]
        checked = f"{len(expected):,} expected dataset ids with {len(counts):,} found ones"
        return [
            _verdict("each good file's datasets are in the Butler", checked, missing),
            _verdict("nothing else is in the Butler", checked, foreign),
            _verdict("no dataset is there twice", checked, twice),
        ]

    def judge_files(self, found: Iterable[UUID]) -> Verdict:
        """Compare the datastore's records of files with the datasets: each has one, whatever else there is."""
        counts = Counter(found)
        expected = self.datasets()
        wrong = [f"{dataset}: {counts[dataset]} records" for dataset in expected if counts[dataset] != 1]
        return _verdict("each dataset has one file", f"{counts.total():,} records of the datastore", wrong)

    def judge_count(self, promise: str, checked: str, found: int, expected: int) -> Verdict:
        """Compare two numbers."""
        return _verdict(promise, f"{checked}: {found:,} of {expected:,}", abs(found - expected))

    def published(self) -> int:
        """How many messages were published, events included."""
        return len(self._messages)

    def understood_arrivals(self) -> int:
        """How many messages were understood and tell of a file that arrived."""
        population = self._population
        broken = sum(WAYS[number % population.ways].understood for number in range(population.broken))
        return population.good_files + population.duplicated + broken

    def datasets(self) -> set[UUID]:
        """Ids of all datasets that the good files hold."""
        population, files = self._population, self._messages.files
        ids: set[UUID] = set()
        for exposure in range(population.exposures):
            ids.update(files.raw_ids(exposure))
            for role in range(population.raw_roles(exposure).stop, population.files(exposure)):
                product = population.product(exposure, role)
                assert product is not None  # these are the roles of products
                ids.add(product.dataset_id)
        return ids

    def _rows_expected(self) -> int:
        return self.published() - self._population.events

    def _judge_good(self, outcomes: dict[int, Counter[State]]) -> tuple[list[str], list[str]]:
        lost, repeated = [], []
        for number, states in outcomes.items():
            if states[State.INGESTED] != 1:
                lost.append(f"file {number}: {dict(states)}")
            elif states.keys() - {State.INGESTED, State.DUPLICATE}:
                repeated.append(f"file {number}: {dict(states)}")
        missing = self._population.good_files - len(outcomes)
        return lost + ["never announced"] * missing, repeated


def _verdict(promise: str, checked: str, violations: list[str] | int) -> Verdict:
    if isinstance(violations, int):
        return Verdict(promise, checked, violations)
    return Verdict(promise, checked, len(violations), tuple(violations[:MAX_EXAMPLES]))
