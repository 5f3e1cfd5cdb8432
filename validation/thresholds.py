"""Judging one number against one threshold: the four directions a requirement can have, and how far off a number is.

Belongs here: pure functions of a threshold's limits and a value. Doesn't: the file in which thresholds are written
(`planning.release`), which verdict follows from a standing (`validation.scorecard`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from planning.release import Threshold
from resources.errors import Rejected

Limit = float | tuple[float, float]


class Limits(Protocol):
    """What of a threshold decides about a number: a release's thresholds and a scorecard's rows have it."""

    @property
    def kind(self) -> str:
        """One of at_most, absolute_at_most, at_least, between."""

    @property
    def design(self) -> float | None:
        """The limit whose missing warns."""

    @property
    def minimum(self) -> Limit:
        """The limit whose missing fails; low and high for between."""


class Standing(StrEnum):
    """Where a metric stands against its threshold."""

    MEETS_DESIGN = "meets design"
    MEETS_MINIMUM = "meets minimum"
    MISSES_MINIMUM = "misses minimum"
    NOT_MEASURABLE = "not measurable"
    UNREPORTED = "unreported"


def check_threshold(threshold: Threshold, where: str = "") -> None:
    """Refuse a threshold that contradicts itself.

    Parameters
    ----------
    threshold
        As written in the release.
    where
        File and key, for the message.

    Raises
    ------
    resources.errors.Rejected
        The limits don't fit the kind, aren't numbers, or the design is laxer than the minimum.
    """
    where = where or f"threshold {threshold.metric}"
    numbers = (*_as_tuple(threshold.minimum), *(() if threshold.design is None else (threshold.design,)))
    if not all(math.isfinite(number) for number in numbers):
        raise Rejected("a limit is not a finite number", where, "give numbers")
    if threshold.kind == "between":
        if isinstance(threshold.minimum, float) or threshold.minimum[0] > threshold.minimum[1]:
            raise Rejected("between needs minimum: [low, high]", where, "give both, the lower one first")
        if threshold.design is not None:
            raise Rejected("between has no design value", where, "leave design out")
        return
    if not isinstance(threshold.minimum, float):
        raise Rejected(f"{threshold.kind} has one minimum", where, "give one number, or write kind: between")
    if threshold.design is not None and not meets(threshold.kind, threshold.design, threshold.minimum):
        raise Rejected("the design value misses the minimum", where, "exchange them")


def check_thresholds(thresholds: Iterable[Threshold], where: str = "") -> None:
    """Refuse thresholds that contradict themselves or each other.

    Parameters
    ----------
    thresholds
        As written in the release.
    where
        The file, for the message.

    Raises
    ------
    resources.errors.Rejected
        A threshold is malformed, or a metric and band is named by two of them.
    """
    seen: set[tuple[str, str]] = set()
    for index, threshold in enumerate(thresholds):
        key = f"validation.thresholds[{index}] ({threshold.metric})"
        place = f"{where}: {key}" if where else key
        check_threshold(threshold, place)
        for band in threshold.bands or ("",):
            if (threshold.metric, band) in seen:
                raise Rejected(f"{threshold.metric} {band}".strip() + " has two thresholds", place, "keep one")
            seen.add((threshold.metric, band))


def meets(kind: str, value: float, limit: Limit) -> bool:
    """Tell whether a value is within one limit; a value that is no number never is.

    Parameters
    ----------
    kind
        at_most, absolute_at_most, at_least or between.
    value
        In the limit's unit.
    limit
        A number, or (low, high) for between; the limit itself is within.
    """
    if not math.isfinite(value):
        return False
    low, high = _range(kind, limit)
    return low <= value <= high


def standing_of(limits: Limits, value: float | None) -> Standing:
    """Place a value among the limits of a threshold.

    Parameters
    ----------
    limits
        A threshold's kind, design and minimum.
    value
        The metric; None or NaN if it couldn't be measured.
    """
    if value is None or not math.isfinite(value):
        return Standing.NOT_MEASURABLE
    if not meets(limits.kind, value, limits.minimum):
        return Standing.MISSES_MINIMUM
    if limits.design is None or meets(limits.kind, value, limits.design):
        return Standing.MEETS_DESIGN
    return Standing.MEETS_MINIMUM


def badness(limits: Limits, value: float) -> float:
    """Order values of one metric: the larger, the worse.

    Parameters
    ----------
    limits
        Kind and minimum of its threshold.
    value
        The metric.

    Returns
    -------
    float
        The value, its size, its negative, or how far it is outside the range (negative inside), by kind.
    """
    match limits.kind:
        case "at_most":
            return value
        case "at_least":
            return -value
        case "absolute_at_most":
            return abs(value)
        case _:
            low, high = _range(limits.kind, limits.minimum)
            return max(low - value, value - high)  # of either sign exactly where it meets the range or misses it


def limit_text(kind: str, limit: Limit | None) -> str:
    """Write a limit as people do, such as ``≤ 8`` or ``0.9 … 1.3``; empty where there is none.

    Parameters
    ----------
    kind
        at_most, absolute_at_most, at_least or between.
    limit
        The number or numbers.
    """
    if limit is None:
        return ""
    low, high = _range(kind, limit)
    match kind:
        case "at_most":
            return f"≤ {high:.4g}"
        case "at_least":
            return f"≥ {low:.4g}"
        case "absolute_at_most":
            return f"± {high:.4g}"
        case _:
            return f"{low:.4g} … {high:.4g}"


def _range(kind: str, limit: Limit) -> tuple[float, float]:
    """Give the lowest and highest value that is within a limit."""
    if not isinstance(limit, float | int):
        return limit
    match kind:
        case "at_most":
            return -math.inf, limit
        case "at_least":
            return limit, math.inf
        case "absolute_at_most":
            return -abs(limit), abs(limit)
        case _:
            raise Rejected(f"{kind} needs two limits, or isn't known", "threshold", "see planning.release.Threshold")


def _as_tuple(limit: Limit) -> tuple[float, ...]:
    return limit if isinstance(limit, tuple) else (limit,)
