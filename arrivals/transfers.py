"""Statistics of transfers: efficiency, rate and volume by pair of RSEs and hour.

Belongs here: the pure arithmetic on counts of events, honest about what can't be computed. Doesn't: counting events
(`arrivals.ledger`), or showing the numbers (`drp_assets.transfers`, `arrivals.metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from arrivals.records import TransferCount

UNKNOWN = "unknown"
"""Where an event doesn't name an RSE."""


@dataclass(frozen=True, slots=True)
class TransferStatistics:
    """Transfers that ended.

    Parameters
    ----------
    done, failed
        How many, by what their events say.
    bytes
        Volume of those done.
    timed_bytes, duration_s
        Of those done whose events told how long they took: volume, and the sum of the times.
    others
        Other events: submissions, deletions.
    """

    done: int = 0
    failed: int = 0
    bytes: int = 0
    timed_bytes: int = 0
    duration_s: int = 0
    others: int = 0

    @property
    def efficiency(self) -> float | None:
        """Share of those ended that were done; none if none ended."""
        ended = self.done + self.failed
        return self.done / ended if ended else None

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Mean rate of one transfer; none if no event told how long it took."""
        return self.timed_bytes / self.duration_s if self.duration_s else None

    def throughput_bytes_per_s(self, span_s: float) -> float:
        """Volume in a span of time by its length, however many transfers there were at a time."""
        return self.bytes / span_s

    @property
    def silence(self) -> str:
        """Why something can't be computed, or nothing."""
        reasons = []
        if self.efficiency is None:
            reasons.append("no efficiency: no transfer ended")
        if self.rate_bytes_per_s is None and self.done:
            reasons.append("no rate: no event told how long a transfer took")
        elif self.rate_bytes_per_s is None:
            reasons.append("no rate: no transfer was done")
        return "; ".join(reasons)

    def __add__(self, other: Self) -> Self:
        """Both together."""
        return type(self)(
            self.done + other.done,
            self.failed + other.failed,
            self.bytes + other.bytes,
            self.timed_bytes + other.timed_bytes,
            self.duration_s + other.duration_s,
            self.others + other.others,
        )


@dataclass(frozen=True, slots=True, order=True)
class RsePair:
    """From where to where."""

    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.source} → {self.destination}"


def statistics_of(count: TransferCount) -> TransferStatistics:
    """What one count of events says.

    Parameters
    ----------
    count
        Of one type of event.
    """
    match count.event_type:
        case "transfer-done":
            return TransferStatistics(count.count, 0, count.bytes, count.timed_bytes, count.duration_s)
        case "transfer-failed":
            return TransferStatistics(failed=count.count)
        case _:
            return TransferStatistics(others=count.count)


def by_pair(counts: Iterable[TransferCount]) -> Mapping[RsePair, TransferStatistics]:
    """Statistics by pair of RSEs, in their order.

    Parameters
    ----------
    counts
        Of events.
    """
    return _summed(counts, pair_of)


def by_pair_and_hour(counts: Iterable[TransferCount]) -> Mapping[tuple[RsePair, datetime], TransferStatistics]:
    """Statistics by pair of RSEs and hour, in their order.

    Parameters
    ----------
    counts
        Of events.
    """
    return _summed(counts, lambda count: (pair_of(count), count.hour))


def pair_of(count: TransferCount) -> RsePair:
    """The pair of RSEs that events are about.

    Parameters
    ----------
    count
        Of events.
    """
    return RsePair(count.src_rse or UNKNOWN, count.dst_rse or UNKNOWN)


def total(statistics: Iterable[TransferStatistics]) -> TransferStatistics:
    """All together.

    Parameters
    ----------
    statistics
        Of anything that doesn't overlap.
    """
    return sum(statistics, start=TransferStatistics())


def _summed[K: Hashable](
    counts: Iterable[TransferCount], key_of: Callable[[TransferCount], K]
) -> Mapping[K, TransferStatistics]:
    summed: dict[K, TransferStatistics] = {}
    for count in counts:
        key = key_of(count)
        summed[key] = summed.get(key, TransferStatistics()) + statistics_of(count)
    return dict(sorted(summed.items(), key=lambda item: item[0]))  # type: ignore[arg-type, return-value]
