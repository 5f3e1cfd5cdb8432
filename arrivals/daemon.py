"""Arrivals without Dagster: drain and ingest in turn, until told to stop.

Belongs here: the loop, its pauses and its graceful end. Doesn't: what a turn does (`arrivals.drain` and
`arrivals.ingest`), or the command that starts it (`commands`).
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lsst.daf.butler import Butler

from arrivals.drain import DrainLimits, DrainResult, drain
from arrivals.ingest import IngestReport, ingest_pending
from arrivals.ledger import Ledger
from arrivals.states import State
from resources.errors import Retriable
from resources.site import ArrivalSettings, KafkaSettings

LONGEST_PAUSE_S = 60.0

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
) -> None:
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

    Raises
    ------
    resources.errors.SiteFault
        The site is at fault; waiting wouldn't help.
    """
    pause_s = poll_s
    while not stop.is_set():
        turn = _turn(kafka, settings, ledger, butler, stop, limits)
        on_turn(turn)
        _log(turn)
        if turn.trouble:
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            pause_s = poll_s
            if turn.idle:
                stop.wait(poll_s)


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


def _turn(
    kafka: KafkaSettings,
    settings: ArrivalSettings,
    ledger: Ledger,
    butler: Butler,
    stop: threading.Event,
    limits: DrainLimits | None,
) -> Turn:
    drained, ingested, troubles = None, None, []
    try:
        drained = drain(kafka, settings, ledger, limits, stopping=stop.is_set)
    except Retriable as error:
        troubles.append(str(error))
    try:
        ingested = ingest_pending(butler, ledger, settings, stopping=stop.is_set)
    except Retriable as error:
        troubles.append(str(error))
    return Turn(drained, ingested, "; ".join(troubles))


def _log(turn: Turn) -> None:
    drained, ingested = turn.drained, turn.ingested
    if turn.trouble:
        _LOG.warning("%s", turn.trouble)
    if drained is not None:
        for notice in drained.notices:
            _LOG.warning("%s", notice)
        if drained.rows or drained.events:
            _LOG.info("%d messages read, %d still in Kafka", drained.rows + drained.events, drained.lag)
    if ingested is not None and ingested.outcomes:
        _LOG.info("%s", ", ".join(f"{ingested.count(state)} {state}" for state in State if ingested.count(state)))
        for problem in ingested.problems:
            _LOG.warning("%s %s: %s", problem.state, problem.did, problem.reason)
