"""The casebook: what failed at this site and what was decided about it, and which data IDs are left out.

Belongs here: two tables beside the arrivals' ledger, because neither is only Dagster's to know, several workers write
them at a time, and what is backed up with the ledger is backed up with them. Rows are added and marked, never removed.
Doesn't: deciding anything (`planning.policies`), or what a decision leads to (`launchers.policies`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from resources.databases import database_trouble, ledger_url, postgresql_engine

type DataId = Mapping[str, int | str]

_METADATA = MetaData()
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")
_BUSY_TIMEOUT_S = 60.0
_LOCK = 0x6472705F63617365  # "drp_case"

_CASES = Table(
    "failure_cases",
    _METADATA,
    Column("case_id", _ROW_ID, primary_key=True),
    Column("noted_at", DateTime(timezone=True), nullable=False),
    Column("release", String(100), nullable=False, index=True),
    Column("step", String(100), nullable=False),
    Column("submission", String(300), nullable=False),
    Column("dagster_run", String(100), nullable=False),
    Column("task", String(200), nullable=False),
    Column("data_id", Text, nullable=False),
    Column("exception", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("log", Text, nullable=False),
    Column("action", String(30), nullable=False),
    Column("policy", String(200), nullable=False),
    Column("memory_mb", Integer),
    Column("node", String(300)),
    Column("used_mb", Float),
    UniqueConstraint("submission", "task", "data_id"),
)
_QUARANTINE = Table(
    "quarantined_data_ids",
    _METADATA,
    Column("entry_id", _ROW_ID, primary_key=True),
    Column("release", String(100), nullable=False, index=True),
    Column("data_id", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("quarantined_by", String(300), nullable=False),
    Column("why", Text, nullable=False),
    Column("readmitted_at", DateTime(timezone=True)),
    Column("readmitted_by", String(300)),
    Column("readmitted_why", Text),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One failed quantum of one submission, and what was decided about it.

    Parameters
    ----------
    release, step, submission
        Where it failed.
    dagster_run
        The run that watched the submission.
    task, data_id, exception, message, log
        What failed, why, and the quantum's log.
    node, used_mb
        Where, and the most memory that it had; None where that isn't known.
    action, policy, memory_mb
        What was decided, by which rule, and the memory it will be tried again with.
    noted_at
        When it was decided; None before it has been written.
    """

    release: str
    step: str
    submission: str
    dagster_run: str
    task: str
    data_id: DataId
    exception: str
    message: str
    log: str
    action: str
    policy: str
    memory_mb: int | None = None
    node: str | None = None
    used_mb: float | None = None
    noted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A data ID that a release leaves out, since when, by whom and why; or did, until it was readmitted."""

    data_id: DataId
    since: datetime
    by: str
    why: str
    readmitted_at: datetime | None = None
    readmitted_by: str | None = None
    readmitted_why: str | None = None


class Casebook:
    """The site's record of failures, decisions and quarantined data IDs.

    Every method raises `resources.errors.Retriable` where the database is gone or busy: nothing is half done then.

    Parameters
    ----------
    url
        SQLAlchemy URL of the ledger's database. Missing tables are made.
    """

    def __init__(self, url: str) -> None:
        parsed = ledger_url(url)
        if parsed.get_backend_name() == "postgresql":
            self._engine = postgresql_engine(parsed)
        else:
            self._engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S})
        with self._writing() as connection:
            _METADATA.create_all(connection)
            _add_what_older_books_lack(connection)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def note(self, cases: Iterable[Case]) -> int:
        """Write decisions down; one that is written already stays as it is.

        Parameters
        ----------
        cases
            Of one submission or several.

        Returns
        -------
        new
            How many were not written before.
        """
        rows = [_case_row(case) for case in cases]
        with self._writing() as connection:
            submissions = {row["submission"] for row in rows}
            known = select(_CASES.c.submission, _CASES.c.task, _CASES.c.data_id)
            written = {tuple(row) for row in connection.execute(known.where(_CASES.c.submission.in_(submissions)))}
            new = [row for row in rows if (row["submission"], row["task"], row["data_id"]) not in written]
            if new:
                connection.execute(insert(_CASES), new)
        return len(new)

    def cases(
        self,
        release: str,
        *,
        step: str | None = None,
        submissions: Collection[str] | None = None,
        limit: int | None = None,
    ) -> list[Case]:
        """List decisions, the latest first.

        Parameters
        ----------
        release, step, submissions
            Whose; of all steps and submissions where none is named.
        limit
            How many at most.
        """
        query = select(_CASES).where(_CASES.c.release == release).order_by(_CASES.c.case_id.desc()).limit(limit)
        if step is not None:
            query = query.where(_CASES.c.step == step)
        if submissions is not None:
            query = query.where(_CASES.c.submission.in_(submissions))
        with self._reading() as connection:
            return [_case(row) for row in connection.execute(query).mappings()]

    def quarantine(self, release: str, data_ids: Collection[DataId], *, why: str, by: str) -> int:
        """Leave data IDs out from now on.

        Parameters
        ----------
        release
            Which release leaves them out.
        data_ids
            Those that are left out already stay as they are.
        why, by
            For whoever asks later.

        Returns
        -------
        new
            How many were not left out before.
        """
        now = datetime.now(UTC)
        with self._writing() as connection:
            active = select(_QUARANTINE.c.data_id).where(
                _QUARANTINE.c.release == release, _QUARANTINE.c.readmitted_at.is_(None)
            )
            known = set(connection.execute(active).scalars())
            new = sorted({_canonical(data_id) for data_id in data_ids} - known)
            if new:
                connection.execute(
                    insert(_QUARANTINE),
                    [
                        {"release": release, "data_id": each, "since": now, "quarantined_by": by, "why": why}
                        for each in new
                    ],
                )
        return len(new)

    def readmit(self, release: str, data_ids: Collection[DataId], *, why: str, by: str) -> int:
        """Take data IDs in again; what was said of them stays in the record.

        Parameters
        ----------
        release
            Which release left them out.
        data_ids
            Exactly as they were quarantined.
        why, by
            For whoever asks later.

        Returns
        -------
        readmitted
            How many of them had been left out.
        """
        names = [_canonical(data_id) for data_id in data_ids]
        entries = update(_QUARANTINE).where(
            _QUARANTINE.c.release == release, _QUARANTINE.c.readmitted_at.is_(None), _QUARANTINE.c.data_id.in_(names)
        )
        with self._writing() as connection:
            return connection.execute(
                entries.values(readmitted_at=datetime.now(UTC), readmitted_by=by, readmitted_why=why)
            ).rowcount

    def quarantined(self, release: str, *, history: bool = False) -> list[Quarantined]:
        """List the data IDs that a release leaves out.

        Parameters
        ----------
        release
            Which.
        history
            Also those that have been readmitted.
        """
        query = select(_QUARANTINE).where(_QUARANTINE.c.release == release).order_by(_QUARANTINE.c.entry_id)
        if not history:
            query = query.where(_QUARANTINE.c.readmitted_at.is_(None))
        with self._reading() as connection:
            return [
                Quarantined(
                    json.loads(row["data_id"]),
                    _utc(row["since"]),
                    row["quarantined_by"],
                    row["why"],
                    row["readmitted_at"] and _utc(row["readmitted_at"]),
                    row["readmitted_by"],
                    row["readmitted_why"],
                )
                for row in connection.execute(query).mappings()
            ]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise database_trouble(error, self._engine) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the one writer at a time, which looks and writes."""
        try:
            with self._engine.begin() as connection:
                _let_nobody_else_write(connection)
                yield connection
        except DBAPIError as error:
            raise database_trouble(error, self._engine) from error


def _add_what_older_books_lack(connection: Connection) -> None:
    there = {column["name"] for column in inspect(connection).get_columns(_CASES.name)}
    for column in (_CASES.c.node, _CASES.c.used_mb):
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            connection.execute(text(f"ALTER TABLE {_CASES.name} ADD COLUMN {column.name} {kind}"))


def _let_nobody_else_write(connection: Connection) -> None:
    """Hold the right to write until the transaction ends: SQLite by its own lock, PostgreSQL by an advisory one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    else:
        # The driver would begin the transaction only at the first write, after the look.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _canonical(data_id: DataId) -> str:
    return json.dumps(dict(data_id), sort_keys=True)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _case_row(case: Case) -> dict[str, Any]:
    names = ("release", "step", "submission", "dagster_run", "task", "exception", "message", "log", "action", "policy")
    row = {name: getattr(case, name) for name in names}
    return row | {
        "data_id": _canonical(case.data_id),
        "memory_mb": case.memory_mb,
        "node": case.node,
        "used_mb": case.used_mb,
        "noted_at": case.noted_at or datetime.now(UTC),
    }


def _case(row: Mapping[Any, Any]) -> Case:
    values = {key: value for key, value in row.items() if key != "case_id"}
    values |= {"data_id": json.loads(values["data_id"]), "noted_at": _utc(values["noted_at"])}
    return Case(**values)
