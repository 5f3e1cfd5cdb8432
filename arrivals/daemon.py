"""Arrivals without Dagster: drain and ingest side by side, turn by turn, until told to stop.

Belongs here: the loop, its pauses, its patience with services that are away, its log and its graceful end. Doesn't:
the halves of a turn (`arrivals.drain` and `arrivals.ingest`), or the command that starts it (`commands`).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from lsst.daf.butler import Butler
from sqlalchemy.exc import DBAPIError

from arrivals.drain import Drain, DrainLimits, DrainResult
from arrivals.health import duration
from arrivals.ingest import IngestReport, ingest_pending
from arrivals.ledger import Ledger
from arrivals.states import State
from resources.databases import trouble_of
from resources.errors import Retriable, SiteFault
from resources.site import ArrivalSettings, KafkaSettings

LONGEST_PAUSE_S = 60.0

LONGEST_INGEST_S = 60.0
"""After so long an ingest rests, at the next batch, for a drain and a line of log: a night's worth takes many turns."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the loop.

    Parameters
    ----------
    drained, ingested
        What it did, if it came to that.
    trouble
        Why it didn't, or only in part: with Kafka gone, what has come is still ingested.
    """

    drained: DrainResult | None = None
    ingested: IngestReport | None = None
    trouble: str = ""

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.drained and (self.drained.rows or self.drained.lag)) and not (
            self.ingested and self.ingested.outcomes
        )


@dataclass(slots=True)
class Totals:
    """What a daemon has done since it started."""

    read: int = 0
    ingested: int = 0
    datasets: int = 0
    quarantined: int = 0

    def add(self, turn: Turn) -> None:
        """Count one turn more."""
        if turn.drained is not None:
            self.read += turn.drained.rows + turn.drained.events
        if turn.ingested is not None:
            self.ingested += turn.ingested.count(State.INGESTED)
            self.quarantined += turn.ingested.count(State.QUARANTINED)
            self.datasets += turn.ingested.datasets

    def __str__(self) -> str:
        return (
            f"{self.read:,} messages read, {self.ingested:,} ingested ({self.datasets:,} datasets), "
            f"{self.quarantined:,} quarantined"
        )


class Intake:
    """Both halves of arrivals in one process: what is new is drained while what was drained before is ingested.

    Parameters
    ----------
    kafka, settings, ledger, butler
        The site's; the Butler is writeable.
    limits
        Of each turn's drain.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: ArrivalSettings,
        ledger: Ledger,
        butler: Butler,
        limits: DrainLimits | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._butler = butler
        self._limits = limits
        self._drain = Drain(kafka, settings)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="drain")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of Kafka."""
        self._beside.shutdown()
        self._drain.close()

    def turn(self, stopping: Callable[[], bool] = lambda: False) -> Turn:
        """Drain and ingest once; trouble that may pass is in the answer.

        Parameters
        ----------
        stopping
            Asked between batches whether to stop early.

        Raises
        ------
        resources.errors.SiteFault
            The site is at fault; waiting wouldn't help.
        """
        drained, ingested, troubles = None, None, []
        reading = self._beside.submit(self._drain.drain, self._ledger, self._limits, stopping=stopping)
        deadline = time.monotonic() + LONGEST_INGEST_S
        try:
            ingested = ingest_pending(
                self._butler, self._ledger, self._settings, stopping=lambda: stopping() or time.monotonic() > deadline
            )
        except (Retriable, DBAPIError) as error:
            troubles.append(_passing(error))
        try:
            drained = reading.result()
        except (Retriable, DBAPIError) as error:
            troubles.insert(0, _passing(error))
        return Turn(drained, ingested, "; ".join(dict.fromkeys(troubles)))


def run_daemon(
    kafka: KafkaSettings,
    settings: ArrivalSettings,
    ledger: Ledger,
    butler: Butler,
    stop: threading.Event,
    *,
    limits: DrainLimits | None = None,
    poll_s: float = 5.0,
    on_turn: Callable[[Turn], None] = lambda turn: None,
) -> Totals:
    """Drain and ingest until ``stop`` is set; what was begun is recorded before it returns.

    Parameters
    ----------
    kafka, settings, ledger, butler
        The site's; the Butler is writeable.
    stop
        Ends the loop between batches.
    limits
        Of each turn's drain.
    poll_s
        Pause after a turn with nothing to do. Trouble that may pass makes pauses longer, up to a minute.
    on_turn
        Told of each turn.

    Returns
    -------
    totals
        What was done until then.

    Raises
    ------
    resources.errors.SiteFault
        The site is at fault; waiting wouldn't help.
    """
    pauses = _Pauses(poll_s)
    totals = Totals()
    told: tuple[str, ...] = ()
    with Intake(kafka, settings, ledger, butler, limits) as intake:
        while not stop.is_set():
            turn = intake.turn(stop.is_set)
            totals.add(turn)
            on_turn(turn)
            for level, line in lines_of(turn, told):
                _LOG.log(level, "%s", line)
            told = told if turn.drained is None else turn.drained.notices
            if turn.trouble:
                stop.wait(pauses.after_trouble())
            else:
                pauses.trouble_is_over()
                if turn.idle:
                    stop.wait(poll_s)
    return totals


def patiently[T](attempt: Callable[[], T], stop: threading.Event, *, pause_s: float = 5.0) -> T | None:
    """Open something that may be away now, as often as it takes; each trouble is a line of log.

    Parameters
    ----------
    attempt
        Opens it.
    stop
        Ends the attempts.
    pause_s
        After the first one; each next one is twice as long, up to a minute.

    Returns
    -------
    opened
        What it is; none if ``stop`` was set before.
    """
    pauses = _Pauses(pause_s)
    while not stop.is_set():
        try:
            opened = attempt()
        except (Retriable, DBAPIError, SiteFault) as error:
            _LOG.warning("%s; it is tried again", _passing(error))
            stop.wait(pauses.after_trouble())
        else:
            pauses.trouble_is_over()
            return opened
    return None


def lines_of(turn: Turn, told: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """What the log says of a turn: what was done, and each trouble, notice, cause of conflict and cause of quarantine.

    Parameters
    ----------
    turn
        Of the loop; an idle one has no lines.
    told
        Notices of the turn before: what is as it was isn't said again.
    """
    drained, ingested = turn.drained, turn.ingested
    done = []
    if drained is not None and drained.rows + drained.events:
        left = f"{drained.lag:,} left in Kafka, " if drained.lag else ""
        done.append(f"{drained.rows + drained.events:,} messages read ({left}{drained.elapsed_s:.1f} s)")
    if ingested is not None and ingested.outcomes:
        states = ", ".join(f"{ingested.count(state):,} {state}" for state in State if ingested.count(state))
        done.append(
            f"{states}; {ingested.datasets:,} datasets, {ingested.bytes / 1e6:,.1f} MB ({ingested.elapsed_s:.1f} s)"
        )
    if done:
        yield logging.INFO, "; ".join(done)
    if turn.trouble:
        yield logging.WARNING, turn.trouble
    for notice in drained.notices if drained is not None else ():
        if notice not in told:
            yield logging.WARNING, notice
    if ingested is not None:
        for line in ingested.conflict_lines:
            yield logging.WARNING, line
        for problem in ingested.problems:
            if problem.state is State.QUARANTINED:
                yield logging.WARNING, str(problem)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal of the kind does what it always did."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Pauses:
    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._next_s = first_s
        self._since: float | None = None

    def after_trouble(self) -> float:
        self._since = time.monotonic() if self._since is None else self._since
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        return pause_s

    def trouble_is_over(self) -> None:
        if self._since is not None:
            _LOG.info("the trouble is over after %s", duration(time.monotonic() - self._since))
        self._since = None
        self._next_s = self._first_s


def _passing(error: Exception) -> str:
    """The line about an error that may pass by itself; any other is raised again."""
    trouble = trouble_of(error, "ledger or Butler") or error
    if isinstance(trouble, Retriable) or isinstance(trouble_of(trouble.__cause__, ""), Retriable):
        return str(trouble)
    raise trouble
