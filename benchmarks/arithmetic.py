"""How figures follow from what was measured: pure functions of seconds.

Belongs here: sums and differences that deserve a test of their own. Doesn't: measuring, or judging against a target
(`benchmarks.report`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

type Interval = tuple[float, float]


def covered_s(intervals: Iterable[Interval]) -> float:
    """Give the time in which at least one of the intervals lasts.

    Parameters
    ----------
    intervals
        Beginnings and ends in seconds, in any order.
    """
    covered, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def span_s(intervals: Sequence[Interval]) -> float:
    """Give the time from the first beginning to the last end; 0 without intervals.

    Parameters
    ----------
    intervals
        Beginnings and ends in seconds, in any order.
    """
    return max(end for _, end in intervals) - min(begin for begin, _ in intervals) if intervals else 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one submission cost besides the work itself.

    Parameters
    ----------
    quanta
        How many it had.
    seconds
        Its wall time without that of its work.
    """

    quanta: int
    seconds: float


def marginal_s(costs: Sequence[Cost]) -> float:
    """Give what one more quantum costs besides its own execution, as the median over all steps from small to large.

    What a submission costs whatever its size cancels between two consecutive sizes.

    Parameters
    ----------
    costs
        Submissions in the order in which they were made, a smaller one before each larger one.

    Raises
    ------
    ValueError
        No submission is larger than the one before it.
    """
    slopes = [
        (large.seconds - small.seconds) / (large.quanta - small.quanta)
        for small, large in pairwise(costs)
        if large.quanta > small.quanta
    ]
    if not slopes:
        raise ValueError("a marginal cost needs a submission after a smaller one")
    return median(slopes)


def median(values: Sequence[float]) -> float:
    """Give the value in the middle, or the mean of the two there.

    Parameters
    ----------
    values
        At least one.

    Raises
    ------
    ValueError
        There are none.
    """
    if not values:
        raise ValueError("nothing has no median")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
