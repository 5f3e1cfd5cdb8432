"""The record of one workflow in its submit folder, which outlives every process that writes it.

Belongs here: one SQLite file with the jobs, their states and processes, and the driver's; each change is one
transaction.
Doesn't: deciding anything (`launchers.local.jobs`). Standard library only.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.local.jobs import Job, JobState
from launchers.processes import ProcessIdentity

_SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS job (
    position INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    asked TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    process TEXT,
    started_at REAL,
    ended_at REAL
);
"""
_ASKED = (
    "label",
    "parents",
    "waits_for",
    "cpus",
    "memory_mb",
    "walltime_s",
    "retries",
    "no_retry_codes",
    "abort_code",
    "has_command",
    "is_final",
)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job's process, and since when it runs (seconds of the epoch)."""

    process: ProcessIdentity | None
    started_at: float


class JobStore:
    """The jobs of one workflow on disk."""

    FILE = "workflow.sqlite"

    def __init__(self, submit_path: Path) -> None:
        self.submit_path = submit_path
        self._path = submit_path / self.FILE

    @property
    def exists(self) -> bool:
        """Whether a workflow has been prepared here."""
        return self._path.exists()

    def create(self, jobs: Iterable[Job], facts: Mapping[str, Any]) -> None:
        """Write a workflow down for the first time."""
        with self._transaction() as database:
            database.executescript(_SCHEMA)
            database.executemany(
                "INSERT INTO job (name, asked, state) VALUES (?, ?, ?)",
                [(job.name, json.dumps(_asked(job)), job.state.name) for job in jobs],
            )
            _write_facts(database, facts)

    def read_jobs(self) -> list[Job]:
        """Read all jobs, in the order they were written in."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT name, asked, state, attempt, exit_code FROM job ORDER BY position"
            ).fetchall()
        return [_job(*row) for row in rows]

    def read_running(self) -> dict[str, RunningJob]:
        """Read the processes of the jobs that were running when last heard of."""
        with self._transaction() as database:
            rows = database.execute("SELECT name, process, started_at FROM job WHERE state = 'RUNNING'").fetchall()
        return {name: RunningJob(ProcessIdentity.parse(p) if p else None, started or 0.0) for name, p, started in rows}

    def read_durations(self) -> dict[str, float]:
        """Read how long the last attempt of each job took that is over (s)."""
        with self._transaction() as database:
            rows = database.execute("SELECT name, ended_at - started_at FROM job WHERE ended_at >= started_at")
            return dict(rows.fetchall())

    def write_jobs(self, jobs: Iterable[Job], facts: Mapping[str, Any] | None = None) -> None:
        """Write what has changed of the jobs, and perhaps of the workflow, together."""
        now = time.time()
        with self._transaction() as database:
            for job in jobs:
                started = now if job.state is JobState.RUNNING else None
                ended = now if job.state.is_over else None
                database.execute(
                    "UPDATE job SET state = ?, attempt = ?, exit_code = ?, process = NULL,"
                    " started_at = COALESCE(?, started_at), ended_at = ? WHERE name = ?",
                    (job.state.name, job.attempt, job.exit_code, started, ended, job.name),
                )
            _write_facts(database, facts or {})

    def write_process(self, name: str, process: ProcessIdentity) -> None:
        """Write which process a job runs in."""
        with self._transaction() as database:
            database.execute("UPDATE job SET process = ? WHERE name = ?", (str(process), name))

    def read_facts(self) -> dict[str, Any]:
        """Read what is known of the workflow as a whole."""
        with self._transaction() as database:
            return {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM workflow")}

    def write_facts(self, **facts: Any) -> None:
        """Write some of what is known of the workflow as a whole."""
        with self._transaction() as database:
            _write_facts(database, facts)

    def forget_fact(self, key: str) -> None:
        """Forget one thing that was known of the workflow as a whole."""
        with self._transaction() as database:
            database.execute("DELETE FROM workflow WHERE key = ?", (key,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=30.0)
        try:
            with database:
                yield database
        finally:
            database.close()


def _write_facts(database: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    database.executemany(
        "INSERT INTO workflow (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, json.dumps(value)) for key, value in facts.items()],
    )


def _asked(job: Job) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in _ASKED}
    return values | {"no_retry_codes": sorted(job.no_retry_codes)}


def _job(name: str, asked: str, state: str, attempt: int, exit_code: int | None) -> Job:
    values = json.loads(asked)
    values |= {key: tuple(values[key]) for key in ("parents", "waits_for")}
    values["no_retry_codes"] = frozenset(values["no_retry_codes"])
    return Job(name=name, state=JobState[state], attempt=attempt, exit_code=exit_code, **values)
