"""What is broken in a soak: how it is struck, how it is mended, and how one sees that it does its work again.

Belongs here: one value a victim. Doesn't: when each has its turn (`benchmarks.soak.chaos`).
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from benchmarks.soak.site import Shift, SoakSite, start_patiently
from launchers.processes import ProcessIdentity
from launchers.run_launcher import WORKER_TAG
from sensors.arrivals import INGEST_TAG
from services.service import Service

SENSOR = "arrivals"
_POLL_S = 0.05


class Stuck(Exception):
    """Something that had to happen by itself didn't within all patience."""


@dataclass(frozen=True, slots=True)
class Victim:
    """Something that is broken and mended.

    Parameters
    ----------
    name
        What an operator calls it.
    shifts
        In which shifts it is there.
    strike
        Breaks it, and says what exactly that was.
    mend
        What a site does about it: start it again, plug the cable in. Nothing, where the platform helps itself.
    works
        Whether it does its work again, asked with the time of the strike.
    service
        The process that is struck, if it is one that a site keeps running.
    """

    name: str
    shifts: frozenset[Shift]
    strike: Callable[[], str]
    mend: Callable[[], None]
    works: Callable[[float], bool]
    service: Service | None = None


def victims(site: SoakSite, instance: dg.DagsterInstance, patience_s: float) -> Mapping[str, Victim]:
    """Give everything that can be broken, by name, in the order of its turn.

    Parameters
    ----------
    site
        Whose.
    instance
        The site's Dagster instance.
    patience_s
        How long to wait for a run's worker to strike.
    """
    runs = _Runs(instance, patience_s)
    everywhere, daemon, dagster = frozenset(Shift), {Shift.DAEMON, Shift.BOTH}, {Shift.DAGSTER, Shift.BOTH}
    found: Sequence[Victim] = (
        _process("drain", site.ingestd, frozenset(daemon), lambda since: site.ingestd.is_ready()),
        _process("code server", site.code_server, frozenset(dagster), lambda since: _has_ticked(instance, since)),
        _process("Dagster's daemon", site.daemon, frozenset(dagster), lambda since: _has_ticked(instance, since)),
        Victim("run worker", frozenset(dagster), runs.strike, lambda: None, lambda since: runs.went_on()),
        _process("broker", site.kafka, everywhere, lambda since: site.kafka.is_ready()),
        _process("PostgreSQL", site.postgresql, everywhere, lambda since: site.postgresql.is_ready()),
        Victim(
            "network",
            everywhere,
            lambda: _cut(site),
            site.link.restore,
            lambda since: site.link.pid is not None,
            site.link,
        ),
    )
    return {victim.name: victim for victim in found}


def runs_by_status(instance: dg.DagsterInstance) -> Mapping[str, int]:
    """Count the runs that ingested, or were to, by how they ended; what a failed one left is due again."""
    runs = instance.get_runs()
    return Counter(str(run.status.value) for run in runs if INGEST_TAG in run.tags)


def _process(name: str, service: Service, shifts: frozenset[Shift], works: Callable[[float], bool]) -> Victim:
    def strike() -> str:
        pid = service.pid
        service.kill()
        return f"kill -9 {pid}"

    return Victim(name, shifts, strike, lambda: start_patiently(service), works, service)


def _cut(site: SoakSite) -> str:
    site.link.cut()
    return "silence between broker and drain"


def _has_ticked(instance: dg.DagsterInstance, since: float) -> bool:
    """Whether the sensor has looked, and could, after a time."""
    done = [TickStatus.SUCCESS, TickStatus.SKIPPED]
    for state in instance.all_instigator_state():
        if state.instigator_name == SENSOR:
            ticks = instance.get_ticks(
                state.instigator_origin_id, state.selector_id, after=since, limit=1, statuses=done
            )
            if ticks:
                return True
    return False


class _Runs:
    """Runs that ingest, and the one whose worker was struck."""

    def __init__(self, instance: dg.DagsterInstance, patience_s: float) -> None:
        self._instance = instance
        self._patience_s = patience_s
        self._struck = ""
        self._worker = ""

    def strike(self) -> str:
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            for run in self._instance.get_runs(started):
                tag = run.tags.get(WORKER_TAG, "")
                _, _, identity = tag.partition("/")
                if INGEST_TAG in run.tags and identity and ProcessIdentity.parse(identity).send(signal.SIGKILL):
                    self._struck, self._worker = run.run_id, tag
                    return f"kill -9 {ProcessIdentity.parse(identity).pid}, run {run.run_id[:8]}"
            time.sleep(_POLL_S)
        raise Stuck(f"not within {self._patience_s:g} s: a run that ingests has a worker")

    def went_on(self) -> bool:
        """Whether the run that lost its worker has another one, or has ended."""
        run = self._instance.get_run_by_id(self._struck)
        return run is not None and (run.is_finished or run.tags.get(WORKER_TAG) != self._worker)
