"""Breaking a site while messages arrive: one victim after the other, at moments that follow from the seed.

For each incident a portion of the messages is published. When a part of it lies in Kafka, the victim is struck; the
rest is published meanwhile. The victim is mended after a while; then it has to do its work again, the ledger has to go
on, and most of the portion has to be settled before the next incident.

Belongs here: the plan, the course of one incident, and what was seen. Doesn't: the victims
(`benchmarks.soak.victims`), or judging what came out (`benchmarks.soak.oracle`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError

from arrivals.ledger import Ledger
from benchmarks.soak import evidence
from benchmarks.soak.publisher import Publisher
from benchmarks.soak.site import Shift, SoakSite, start_patiently
from benchmarks.soak.victims import Stuck, Victim
from resources.errors import Retriable

_POLL_S = 0.2
_LONGEST_DELAY_S = 1.5
_BRIEF_S = (0.0, 3.0)
_TIMED_OUT_S = (15.0, 20.0)
"""Longer than a client of Kafka's waits for an answer (`resources.kafka`): it has to notice, and to connect anew."""

_LONG_S = (30.0, 60.0)
"""Long enough that everything that waits for Kafka has given up once, and is tried again after ever longer pauses."""

DAEMON_SHIFT = ("drain", "broker", "PostgreSQL", "network")
DAGSTER_SHIFT = ("code server", "Dagster's daemon", "run worker", "broker", "PostgreSQL", "network")


@dataclass(frozen=True, slots=True)
class Turn:
    """Who is struck when.

    Parameters
    ----------
    shift, victim
        Who, and in which shift.
    outage_s
        The least and the most time in which nothing is done about it.
    """

    shift: Shift
    victim: str
    outage_s: tuple[float, float] = _BRIEF_S


def _turns(
    shift: Shift, victims: Sequence[str], outages_s: Mapping[str, tuple[float, float]] = MappingProxyType({})
) -> Sequence[Turn]:
    return [Turn(shift, victim, outages_s.get(victim, _BRIEF_S)) for victim in victims]


SHORT_PLAN = (
    *_turns(Shift.DAEMON, DAEMON_SHIFT, {"network": _TIMED_OUT_S}),
    *_turns(Shift.DAGSTER, DAGSTER_SHIFT[:3]),
)
"""Each victim once."""

ROUND = (
    *_turns(Shift.DAEMON, DAEMON_SHIFT, {"broker": _LONG_S, "network": _LONG_S}),
    *_turns(Shift.DAGSTER, DAGSTER_SHIFT, {"broker": _LONG_S, "network": _LONG_S}),
    *_turns(Shift.BOTH, ("drain", *DAGSTER_SHIFT)),
)
"""Each victim in each shift in which it is there; Kafka is away for long from the daemon, and from Dagster."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the ledger is.

    Parameters
    ----------
    recorded
        Messages read.
    unsettled
        Rows to be settled.
    backlog
        Those of them that wait for nothing.
    """

    recorded: int
    unsettled: int
    backlog: int


@dataclass(frozen=True, slots=True)
class Incident:
    """What was broken, and how things went on.

    Parameters
    ----------
    number, shift, victim, what
        Which.
    at_s
        When, after the start of the soak.
    published
        Messages that lay in Kafka by then.
    before
        How far the ledger was; none if it didn't answer.
    outage_s
        How long nothing was done about it.
    works_s
        After so long the victim did its work again.
    progress_s
        After so long the ledger went on.
    caught_up_s
        After so long most of what had been published was settled.
    """

    number: int
    shift: Shift
    victim: str
    what: str
    at_s: float
    published: int
    before: Standing | None
    outage_s: float
    works_s: float
    progress_s: float
    caught_up_s: float = 0.0

    @property
    def at_work(self) -> bool:
        """Whether the ledger was seen to have messages to read, or rows to ingest, when it was struck."""
        return self.before is not None and (self.before.backlog > 0 or self.before.recorded < self.published)


class Chaos:
    """Breaks a site, in an order and at moments that follow from a seed.

    Parameters
    ----------
    site
        Which.
    ledger
        The site's.
    publisher
        Of the messages.
    seed
        Of the moments.
    patience_s
        How long anything may take that has to happen by itself.
    report
        Told what happens.
    """

    def __init__(
        self,
        site: SoakSite,
        ledger: Ledger,
        publisher: Publisher,
        *,
        seed: int,
        patience_s: float,
        report: Callable[[str], None],
    ) -> None:
        self._site = site
        self._ledger = ledger
        self._publisher = publisher
        self._random = random.Random(seed)
        self._patience_s = patience_s
        self._report = report
        self._shift: Shift | None = None
        self._began = time.monotonic()
        self.incidents: list[Incident] = []
        self.unplanned: list[str] = []

    def run(self, plan: Sequence[Turn], victims: Mapping[str, Victim], messages: int) -> None:
        """Publish everything, and break things meanwhile; `incidents` and `unplanned` tell of it.

        Parameters
        ----------
        plan
            Who is struck when.
        victims
            By name.
        messages
            How many there are in all.

        Raises
        ------
        Stuck
            Something that had to happen by itself didn't within all patience.
        """
        portion = messages // (len(plan) + 1)
        for number, turn in enumerate(plan, start=1):
            self._take_shift(turn.shift)
            self.incidents.append(self._incident(number, turn, victims[turn.victim], portion))
            self._report(_line(self.incidents[-1], len(plan)))
        self._take_shift(Shift.BOTH)
        self._publisher.publish(messages - self._publisher.produced, 0, threading.Event())
        self._wait("everything is settled", lambda: self._is_settled(0))

    def standing(self) -> Standing | None:
        """How far the ledger is, if it answers."""
        try:
            return Standing(evidence.recorded(self._ledger), evidence.unsettled(self._ledger), self._ledger.backlog())
        except (DBAPIError, Retriable):
            return None

    def _take_shift(self, shift: Shift) -> None:
        if shift is not self._shift:
            self._report(f"shift: {shift}")
            self._shift = None
            self._site.take_shift(shift)
            self._shift = shift

    def _incident(self, number: int, turn: Turn, victim: Victim, portion: int) -> Incident:
        strike_after = int(portion * self._random.uniform(0.1, 0.9))
        moment_has_come = threading.Event()
        with ThreadPoolExecutor(1) as publishing:
            published = publishing.submit(self._publisher.publish, portion, strike_after, moment_has_come)
            moment_has_come.wait()
            incident = self._strike(number, turn, victim)
            published.result()
        self._wait(f"what was published is settled after {victim.name}", lambda: self._is_settled(portion // 4))
        return replace(incident, caught_up_s=time.monotonic() - self._began - incident.at_s)

    def _strike(self, number: int, turn: Turn, victim: Victim) -> Incident:
        time.sleep(self._random.uniform(0, _LONGEST_DELAY_S))
        before, published = self.standing(), self._publisher.confirmed
        what = victim.strike()
        moment, clock = time.monotonic(), time.time()
        outage_s = self._random.uniform(*turn.outage_s)
        time.sleep(outage_s)
        victim.mend()
        after = self.standing()
        self._wait(f"{victim.name} works again", lambda: victim.works(clock))
        works_s = time.monotonic() - moment
        self._wait(f"the ledger goes on after {victim.name}", lambda: self._goes_on(after))
        progress_s = time.monotonic() - moment
        return Incident(
            number=number,
            shift=turn.shift,
            victim=victim.name,
            what=what,
            at_s=moment - self._began,
            published=published,
            before=before,
            outage_s=outage_s,
            works_s=works_s,
            progress_s=progress_s,
        )

    def _goes_on(self, since: Standing | None) -> bool:
        now = self.standing()
        if now is None:
            return False
        if since is None or now.recorded > since.recorded or now.unsettled < since.unsettled:
            return True
        return now.backlog == 0 and now.recorded >= self._publisher.confirmed

    def _is_settled(self, but: int) -> bool:
        """Whether everything published is in the ledger, and little is left of what can be settled by now."""
        now = self.standing()
        everything = self._publisher.produced == len(self._publisher)
        left = None if now is None else now.unsettled if everything else now.backlog
        return now is not None and left is not None and left <= but and now.recorded >= self._publisher.produced

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience_s
        while not done():
            if time.monotonic() > deadline:
                raise Stuck(f"not within {self._patience_s:g} s: {what}; {self.standing()}")
            self._look_after_workers()
            time.sleep(_POLL_S)

    def _look_after_workers(self) -> None:
        """Start what ended although nobody struck it, as a site would, and keep it in mind."""
        if self._shift is None:
            return
        for worker in self._site.workers(self._shift):
            if worker.pid is None:
                self.unplanned.append(f"{worker.name} ended by itself: {worker.recent_log().strip()[-300:]}")
                self._report(self.unplanned[-1])
                start_patiently(worker)


def never_at_work(incidents: Iterable[Incident]) -> list[str]:
    """Name the victims that had nothing to do whenever they were struck: what they bore proves nothing."""
    struck = list(incidents)
    return sorted({one.victim for one in struck} - {one.victim for one in struck if one.at_work})


def _line(incident: Incident, of: int) -> str:
    return (
        f"{incident.number}/{of} {incident.at_s:7.1f} s {incident.victim} ({incident.what}), mended after "
        f"{incident.outage_s:.1f} s: works after {incident.works_s:.1f} s, ledger went on after "
        f"{incident.progress_s:.1f} s"
    )
