"""Whether arrivals are well: what is too much or too late, by the site profile's limits.

Belongs here: the observation of everything that operators watch, and the pure judgement of it. Doesn't: asking
(`arrivals.overview`, `arrivals.lag`), or telling anybody (`commands`, `sensors`, `drp_assets`, `arrivals.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from arrivals.announcement import Kind
from arrivals.lag import kafka_lag
from arrivals.ledger import Ledger
from arrivals.overview import Overview, StateCount
from arrivals.states import State
from resources.errors import OperatorError
from resources.site import ArrivalSettings, KafkaSettings

KAFKA_LAG = "kafka_lag"
INGEST_DELAY = "ingest_delay"
OLDEST_WAITING = "oldest_waiting"
QUARANTINE = "quarantine"

FINDINGS: Mapping[str, str] = {
    KAFKA_LAG: "Messages that are in Kafka and not yet in the ledger.",
    INGEST_DELAY: "Since when the oldest message that is to be ingested now has been due.",
    OLDEST_WAITING: "Since when the oldest message that waits for something is in the ledger.",
    QUARANTINE: "Messages that can't become datasets, and that nobody has looked after.",
}
"""What is judged, and what each is about."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Arrivals at one moment.

    Parameters
    ----------
    now
        When.
    states
        Messages by kind and state.
    lag
        Messages still in Kafka, by topic; none if Kafka didn't tell.
    lag_trouble
        Why it didn't.
    """

    now: datetime
    states: Sequence[StateCount]
    lag: Mapping[str, int] | None
    lag_trouble: str = ""

    def rows(self, state: State) -> int:
        """Messages in a state."""
        return sum(count.rows for count in self.states if count.state is state)

    def oldest_s(self, state: State) -> float | None:
        """Seconds since the oldest message in a state came, or has been to be ingested; none if there is none."""
        times = [count.oldest_at for count in self.states if count.state is state]
        return (self.now - min(times)).total_seconds() if times else None

    @property
    def last_received_at(self) -> datetime | None:
        """When the newest message came, if any did."""
        return max((count.last_received_at for count in self.states), default=None)

    def by_kind(self) -> Mapping[Kind | None, Mapping[State, int]]:
        """Messages by kind, then by state; only what there is."""
        kinds: dict[Kind | None, dict[State, int]] = {}
        for count in self.states:
            kinds.setdefault(count.kind, {})[count.state] = count.rows
        return kinds


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was judged.

    Parameters
    ----------
    name
        One of `FINDINGS`.
    passed
        Whether it is within its limit.
    value
        What was found; none if it couldn't be.
    limit
        The site profile's.
    unit
        Of both.
    message
        One line for people: what is found, and what to do if it is too much.
    """

    name: str
    passed: bool
    value: float | None
    limit: float
    unit: str
    message: str


def observe(
    kafka: KafkaSettings, settings: ArrivalSettings, ledger: Ledger, overview: Overview, now: datetime | None = None
) -> Observation:
    """Look at ledger and Kafka; without Kafka, at the ledger.

    Parameters
    ----------
    kafka, settings, ledger, overview
        The site's.
    now
        The time.
    """
    lag, trouble = lag_or_trouble(kafka, settings, ledger)
    return Observation(now or datetime.now(UTC), overview.states(), lag, trouble)


def lag_or_trouble(
    kafka: KafkaSettings, settings: ArrivalSettings, ledger: Ledger
) -> tuple[Mapping[str, int] | None, str]:
    """Ask Kafka what is still to be drained; without it, say why that is unknown.

    Parameters
    ----------
    kafka, settings, ledger
        The site's.
    """
    try:
        return kafka_lag(kafka, settings, ledger), ""
    except OperatorError as error:
        return None, str(error)


def judge(seen: Observation, settings: ArrivalSettings) -> list[Finding]:
    """Compare an observation with the site profile's limits.

    Parameters
    ----------
    seen
        What was observed.
    settings
        The limits.
    """
    return [
        _kafka_lag(seen, settings.max_lag_messages),
        _age(
            INGEST_DELAY,
            seen.oldest_s(State.RECEIVED),
            settings.max_ingest_delay_s,
            "to be ingested",
            "came, was woken or replayed",
            "is the arrivals sensor (or drp ingestd) running, and its last tick or line of log good?",
        ),
        _age(
            OLDEST_WAITING,
            seen.oldest_s(State.WAITING),
            settings.max_waiting_s,
            "that waits",
            "came",
            "see drp ingest waiting; what it waits for may have to be sent again",
        ),
        _quarantine(seen.rows(State.QUARANTINED), settings.max_quarantined),
    ]


def duration(seconds: float) -> str:
    """A time span as people say it, such as ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def counted(count: int, noun: str) -> str:
    """A number of things, such as ``1 message`` or ``1,234 messages``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _kafka_lag(seen: Observation, limit: int) -> Finding:
    if seen.lag is None:
        return Finding(
            KAFKA_LAG, False, None, limit, "messages", f"what is still in Kafka is unknown: {seen.lag_trouble}"
        )
    lag = sum(seen.lag.values())
    worst = max(seen.lag, key=lambda topic: seen.lag[topic] if seen.lag else 0, default="")
    said = f"{counted(lag, 'message')} still in Kafka"
    if lag > limit:
        said += f", most of them in {worst}; is something reading them, and faster than they come?"
    return Finding(KAFKA_LAG, lag <= limit, lag, limit, "messages", said)


def _age(name: str, age_s: float | None, limit_s: float, what: str, since: str, mend: str) -> Finding:
    if age_s is None:
        return Finding(name, True, 0.0, limit_s, "s", f"there is no message {what}")
    said = f"the oldest message {what} {since} {duration(age_s)} ago"
    if age_s > limit_s:
        said += f" (limit {duration(limit_s)}); {mend}"
    return Finding(name, age_s <= limit_s, age_s, limit_s, "s", said)


def _quarantine(rows: int, limit: int) -> Finding:
    said = f"{counted(rows, 'message')} in quarantine"
    if rows > limit:
        said += f" (limit {limit:,}); see drp ingest quarantine, mend the causes, and drp ingest replay"
    return Finding(QUARANTINE, rows <= limit, rows, limit, "messages", said)
