"""Thousands of rows at a time: settled in one statement a state, looked up by DID in one query.

On PostgreSQL what is given goes along as arrays, and is joined as a table; on SQLite, whose statements cost next to
nothing, row by row.

Belongs here: those statements. Doesn't: which states may follow which (`arrivals.states`), or transactions
(`arrivals.ledger`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import batched
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from arrivals.records import Settlement
from arrivals.states import State, may_become
from arrivals.tables import MESSAGES, RETIRED, UtcTime, in_states

_ROWS_A_STATEMENT = 10_000
_DIDS_A_QUERY = 1_000
_GIVEN: dict[str, TypeEngine[Any]] = {
    "row_id": BigInteger(),
    "reason": Text(),
    "waits_for": Text(),
    "retry_at": UtcTime(),
    "day_obs": BigInteger(),
    "exposure": BigInteger(),
}

Content = tuple[str, str, int | None, str | None]
"""Scope, name, bytes, adler32."""


def settle(connection: Connection, settlements: Iterable[Settlement], now: datetime) -> int:
    """Move rows to their next states; see `arrivals.ledger.Ledger.settle`.

    PostgreSQL isn't waited for to reach its disk: if its machine dies within that second, the rows are as they were
    before, and are settled once more.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL synchronous_commit TO off"))
    by_state: dict[State, dict[int, Settlement]] = defaultdict(dict)
    seen: set[int] = set()
    for settlement in settlements:
        if settlement.row_id in seen:
            raise ValueError(f"row {settlement.row_id} is settled twice in one call")
        seen.add(settlement.row_id)
        by_state[settlement.state][settlement.row_id] = settlement
    moved = 0
    for state, chosen in by_state.items():
        for row_ids in batched(sorted(chosen), _ROWS_A_STATEMENT):
            moved += _settle(connection, state, [chosen[row_id] for row_id in row_ids], now)
    return moved


def _settle(connection: Connection, state: State, settlements: Sequence[Settlement], now: datetime) -> int:
    """Move rows, in the order of their ids, to one state."""
    given: Any
    within: ColumnElement[bool]
    if connection.dialect.name == "postgresql":
        given = _table({name: [getattr(item, name) for item in settlements] for name in _GIVEN}).c
        # The range keeps the planner to the months concerned, and to the index if it thinks little of the join.
        within = MESSAGES.c.id.between(settlements[0].row_id, settlements[-1].row_id)
    else:
        given = _Parameters()
        within = true()
    statement = (
        update(MESSAGES)
        .where(MESSAGES.c.id == given.row_id, within, in_states(*may_become(state)))
        .values(
            state=state,
            reason=given.reason,
            waits_for=given.waits_for,
            retry_at=given.retry_at,
            settled_at=now,
            # What waits for something named isn't in trouble: should it be later, its attempts begin anew.
            attempts=case((given.waits_for.is_not(None), 0), else_=MESSAGES.c.attempts + 1),
            day_obs=func.coalesce(given.day_obs, MESSAGES.c.day_obs),
            exposure=func.coalesce(given.exposure, MESSAGES.c.exposure),
        )
    )
    if connection.dialect.name == "postgresql":
        return int(connection.execute(statement).rowcount)
    parameters = [{_parameter(name): getattr(item, name) for name in _GIVEN} for item in settlements]
    return int(connection.execute(statement, parameters).rowcount)


def ingested_contents(connection: Connection, dids: Collection[tuple[str, str]]) -> list[Content]:
    """What was ingested under some DIDs (scope and name), retired rows included."""
    contents: list[Content] = []
    for some in batched(dids, _DIDS_A_QUERY):
        for table, condition in ((RETIRED, true()), (MESSAGES, MESSAGES.c.state == State.INGESTED)):
            wanted = (table.c.scope, table.c.name, table.c.bytes, table.c.adler32)
            query = select(*wanted).where(condition)
            if connection.dialect.name == "postgresql":
                given = _did_table(some)
                # Whatever the statistics say of a table that has just grown: one probe of the index a DID.
                probe = query.where(table.c.scope == given.c.scope, table.c.name == given.c.name).offset(literal(0))
                query = select(*(found := probe.lateral()).c).select_from(given.join(found, true()))
            else:
                query = query.where(tuple_(table.c.scope, table.c.name).in_(some))
            contents += [tuple(row) for row in connection.execute(query)]
    return contents


class _Parameters:
    """The same names as the joined table's columns, for statements that are executed row by row."""

    def __getattr__(self, name: str) -> Any:
        return bindparam(_parameter(name), type_=_GIVEN[name])


def _parameter(name: str) -> str:
    return f"given_{name}"


def _did_table(dids: Sequence[tuple[str, str]]) -> Any:
    arrays = [cast([did[index] for did in dids], ARRAY(Text())) for index in range(2)]
    return func.unnest(*arrays).table_valued(column("scope", Text()), column("name", Text())).render_derived("given")


def _table(values: dict[str, list[Any]]) -> Any:
    arrays = [cast(values[name], ARRAY(_GIVEN[name])) for name in _GIVEN]
    columns = [column(name, type_) for name, type_ in _GIVEN.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived("given")
