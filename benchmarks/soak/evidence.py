"""What is there at the end: rows of the ledger, datasets and files of the Butler, counted where they are.

Belongs here: reading. Doesn't: judging (`benchmarks.soak.oracle`).
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from lsst.daf.butler import Butler
from sqlalchemy import Engine, and_, create_engine, func, not_, select, text

from arrivals.ledger import Ledger
from arrivals.states import State
from arrivals.tables import MESSAGES, OFFSETS, is_unfinished
from benchmarks.soak.oracle import MAX_EXAMPLES, Oracle, Row, Verdict
from benchmarks.soak.population import Population, product_type
from drp_tasks.camera import INSTRUMENT

_ROWS_AT_A_TIME = 10_000
_RESTING = "%/broken/missing/%"
"""Names of files that will never come: their messages go on waiting, and are tried again for a while."""


def rows(ledger: Ledger) -> Iterator[Row]:
    """Read all rows of a ledger that has one topic."""
    query = select(OFFSETS.c.partition, MESSAGES.c.offset, MESSAGES.c.state, MESSAGES.c.reason)
    joined = query.join(OFFSETS, OFFSETS.c.source == MESSAGES.c.source)
    with ledger.engine.connect().execution_options(yield_per=_ROWS_AT_A_TIME) as connection:
        for partition, offset, state, reason in connection.execute(joined):
            yield Row(partition, offset, State(state), reason)


def recorded(ledger: Ledger) -> int:
    """How many messages the ledger has read, by its offsets."""
    with ledger.engine.connect() as connection:
        return int(connection.execute(select(func.coalesce(func.sum(OFFSETS.c.next_offset), 0))).scalar_one())


def unsettled(ledger: Ledger) -> int:
    """How many rows the platform still has to settle, without those whose files will never come."""
    resting = and_(MESSAGES.c.state == State.WAITING, ("/" + MESSAGES.c.name).like(_RESTING))
    with ledger.engine.connect() as connection:
        query = select(func.count()).select_from(MESSAGES).where(is_unfinished(), not_(resting))
        return int(connection.execute(query).scalar_one())


def dataset_ids(butler: Butler, population: Population) -> Iterator[UUID]:
    """Read the ids of all datasets that may have come of the soak's messages."""
    for name in ("raw", *map(product_type, range(population.product_types))):
        refs = butler.query_datasets(name, collections="*", find_first=False, limit=None, explain=False)
        yield from (ref.id for ref in refs)


def judge(oracle: Oracle, population: Population, ledger: Ledger, butler: Butler, registry: str) -> list[Verdict]:
    """Compare everything that is there with what has to be there.

    Parameters
    ----------
    oracle, population
        Know what has to be there.
    ledger, butler
        Have it.
    registry
        SQLAlchemy URL of the Butler's database, to count its records of files.
    """
    events = sum(count.count for count in ledger.transfers() if count.event_type != "transfer-done")
    arrivals = sum(count.count for count in ledger.transfers() if count.event_type == "transfer-done")
    with ledger.exclusive("ingest"):
        verdicts = oracle.judge_rows(rows(ledger))
    engine = create_engine(registry)
    try:
        files = oracle.judge_files(_file_records(engine))
    finally:
        engine.dispose()
    visits = butler.query_dimension_records("visit", instrument=INSTRUMENT, limit=None, explain=False)
    regions = butler.query_dimension_records("visit_detector_region", instrument=INSTRUMENT, limit=None, explain=False)
    known = butler.query_dimension_records("exposure", instrument=INSTRUMENT, limit=None, explain=False)
    understood = oracle.understood_arrivals()
    return [
        oracle.judge_count("rows and events are as many as messages", "offsets", recorded(ledger), oracle.published()),
        *verdicts,
        oracle.judge_count("each event is counted once", "sums by hour", events, population.events),
        oracle.judge_count("each transfer is counted once", "sums by hour", arrivals, understood),
        *oracle.judge_datasets(dataset_ids(butler, population)),
        files,
        oracle.judge_count("each exposure has its record", "records", len(known), population.exposures),
        oracle.judge_count("each exposure has its visit", "records", len(visits), population.exposures),
        oracle.judge_count("each raw has its place on the sky", "records", len(regions), population.raws),
    ]


def _file_records(engine: Engine) -> Iterator[UUID]:
    """Read of which datasets the datastore has records of files, each as often as it has one."""
    with engine.connect().execution_options(yield_per=_ROWS_AT_A_TIME) as connection:
        for (dataset,) in connection.execute(text("SELECT dataset_id FROM file_datastore_records")):
            yield UUID(str(dataset))


def judge_files(butler: Butler, population: Population, most: int) -> Verdict:
    """Read some datasets through the Butler, of all types in turn: the file has to be there, and whole.

    Parameters
    ----------
    butler
        Whose.
    population
        Knows the types.
    most
        So many at most.
    """
    unreadable = []
    read = 0
    names = ("raw", *map(product_type, range(population.product_types)))
    for name in names:
        limit = max(most // len(names), 1)
        for ref in butler.query_datasets(name, collections="*", find_first=False, limit=limit, explain=False):
            read += 1
            try:
                butler.get(ref)
            except Exception as error:  # whatever is wrong with it, it can't be read
                unreadable.append(f"{ref}: {type(error).__name__}: {error}")
    checked = f"{read} datasets of {len(names)} types"
    return Verdict("what is in the Butler can be read", checked, len(unreadable), tuple(unreadable[:MAX_EXAMPLES]))
