"""The soak's own judgement: it knows what must come of its messages, and notices when something else does."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from lsst.daf.butler import DatasetType

from arrivals.reception import receive
from arrivals.records import Partition, Reception
from arrivals.states import State
from benchmarks.soak import evidence
from benchmarks.soak.broken import WAYS
from benchmarks.soak.files import STORAGE_CLASS, SoakFiles
from benchmarks.soak.messages import Messages
from benchmarks.soak.oracle import MAX_EXAMPLES, Oracle, Row
from benchmarks.soak.population import DETECTORS, Population, product_dimension, product_type
from simulator.messages import Announcement
from tests.arrivals.delivered import make_repository, receiving_site

MESSAGES = 600
PARTITIONS = 3
CLOCKS_DIFFER_S = 3600.0


@pytest.fixture(scope="module")
def messages(tmp_path_factory) -> Messages:
    files = SoakFiles(Population(MESSAGES, len(WAYS), seed=7), tmp_path_factory.mktemp("soak"))
    files.write()
    return Messages(files, Announcement(), PARTITIONS)


def published(messages: Messages) -> list[Reception]:
    receptions = []
    offsets = Counter[int]()
    for position, number in enumerate(messages.partition_of):
        partition = Partition("cluster", "LANCS-soak", number)
        receptions.append(
            receive(partition, offsets[number], messages.value(position), datetime.now(UTC), CLOCKS_DIFFER_S)
        )
        offsets[number] += 1
    return receptions


def test_the_order_holds_each_file_each_repetition_each_broken_message_and_each_event():
    population = Population(20_000, len(WAYS), seed=1)

    slots = Counter(int(number) for number in population.order)
    kinds = Counter("event" if (slot := population.slot(n)).is_event else slot.way is None for n in slots)

    assert len(population.order) == 20_000 + population.events
    assert kinds == {True: population.good_files, False: population.broken, "event": population.events}
    assert sum(slots.values()) - len(slots) == population.duplicated == 200
    assert population.broken == 200


def test_dimensions_of_one_exposure_in_twenty_come_after_everything_else():
    population = Population(20_000, len(WAYS), seed=1)
    late = round(population.exposures * 0.05)

    last = [population.slot(int(number)) for number in population.order[-late:]]

    assert {slot.role for slot in last} == {0}
    assert late == 10


def test_the_same_seed_gives_the_same_order_and_another_seed_another_one():
    first, same, other = (Population(2_000, len(WAYS), seed=seed) for seed in (1, 1, 2))

    assert list(first.order) == list(same.order)
    assert list(first.order) != list(other.order)


def test_a_population_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="too few"):
        Population(20, len(WAYS), seed=1)


def test_what_comes_of_the_messages_is_what_the_oracle_expects(messages, tmp_path):
    population = messages.population
    repository = make_repository(tmp_path / "repository")
    site = receiving_site(tmp_path, repository, messages.files.rucio, register_dataset_types=False)
    for number in range(population.product_types):
        dimensions = ("instrument", "detector", product_dimension(number))
        site.butler.registry.registerDatasetType(
            DatasetType(product_type(number), dimensions, STORAGE_CLASS, universe=site.butler.dimensions)
        )
    receptions = published(messages)
    half = len(receptions) // 2
    for some in (receptions[:half], receptions[half:]):
        ends = {reception.partition: reception.offset + 1 for reception in some}
        site.ledger.record_batch(some, ends)
        site.ingest()

    registry = f"sqlite:///{tmp_path}/repo/gen3.sqlite3"
    verdicts = evidence.judge(Oracle(messages), population, site.ledger, site.butler, registry)

    assert {verdict.promise: (verdict.checked, verdict.examples) for verdict in verdicts if not verdict.kept} == {}
    assert evidence.unsettled(site.ledger) == 0


def test_a_file_that_cannot_be_read_is_named(messages):
    class Unreadable:
        def query_datasets(self, name: str, **_: object) -> list[str]:
            return [f"{name}@1"]

        def get(self, ref: str) -> None:
            raise FileNotFoundError("its file")

    verdict = evidence.judge_files(Unreadable(), messages.population, 20)

    assert verdict.violations > len(verdict.examples) == MAX_EXAMPLES
    assert verdict.examples[0] == "raw@1: FileNotFoundError: its file"


def rows_as_expected(messages: Messages) -> list[Row]:
    """What a perfect ledger says, without any ledger: the first message of a file is ingested, others repeat it."""
    rows = []
    seen: set[int] = set()
    for partition, positions in messages.by_partition().items():
        for offset, position in enumerate(positions):
            number = int(messages.population.order[position])
            slot = messages.population.slot(number)
            if slot.is_event:
                continue
            if slot.way is not None:
                way = WAYS[slot.way]
                rows.append(Row(partition, offset, min(way.states), way.reason.replace(".*", "").split("|")[0]))
            else:
                state = State.DUPLICATE if number in seen else State.INGESTED
                rows.append(Row(partition, offset, state, ""))
                seen.add(number)
    return rows


def broken_promises(messages: Messages, rows: list[Row]) -> set[str]:
    return {verdict.promise for verdict in Oracle(messages).judge_rows(rows) if not verdict.kept}


def test_a_perfect_ledger_breaks_no_promise(messages):
    assert broken_promises(messages, rows_as_expected(messages)) == set()


def test_a_lost_message_is_noticed(messages):
    rows = rows_as_expected(messages)
    rows.remove(next(row for row in rows if row.state is State.QUARANTINED))

    assert broken_promises(messages, rows) == {"each message has its row"}


def test_a_message_with_two_rows_is_noticed(messages):
    rows = rows_as_expected(messages)

    assert broken_promises(messages, [*rows, rows[0]]) == {"no message has two rows"}


def test_a_row_of_no_message_is_noticed(messages):
    rows = [*rows_as_expected(messages), Row(0, 10**6, State.INGESTED, "")]

    assert broken_promises(messages, rows) == {"no row is of anything else"}


@pytest.mark.parametrize("state", [State.QUARANTINED, State.WAITING, State.RECEIVED])
def test_a_good_file_that_is_not_ingested_is_noticed(messages, state):
    rows = [replace(row, state=state) if row.state is State.INGESTED else row for row in rows_as_expected(messages)]

    assert "each good file is ingested once" in broken_promises(messages, rows)


def test_a_file_that_is_ingested_twice_is_noticed(messages):
    rows = [
        replace(row, state=State.INGESTED) if row.state is State.DUPLICATE else row
        for row in rows_as_expected(messages)
    ]

    assert broken_promises(messages, rows) == {"each good file is ingested once"}


def test_a_broken_message_with_another_reason_is_noticed(messages):
    rows = [replace(row, reason="somehow") if row.reason else row for row in rows_as_expected(messages)]

    assert broken_promises(messages, rows) == {"each broken message has its state and its reason"}


def test_missing_foreign_and_repeated_datasets_are_noticed(messages):
    oracle = Oracle(messages)
    first, *others = oracle.datasets()

    def broken(found):
        return {verdict.promise for verdict in oracle.judge_datasets(found) if not verdict.kept}

    assert broken([first, *others]) == set()
    assert broken([first, *others, UUID(int=0)]) == {"nothing else is in the Butler"}
    assert broken(others) == {"each good file's datasets are in the Butler"}
    assert oracle.judge_files([first, *others, UUID(int=0)]).kept
    assert oracle.judge_files(others).violations == oracle.judge_files([first, first, *others]).violations == 1
    assert broken([first, *others, first]) == {"no dataset is there twice"}
    assert len(others) + 1 == messages.population.raws + messages.population.products
    assert messages.population.raws == len(DETECTORS) * messages.population.exposures
