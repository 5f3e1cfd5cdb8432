"""When a day_obs is ingested: once it is quiet, in few large batches, and now and then while it is not.

Belongs here: deciding what to ask for, from what the ledger has and what was asked for before. Doesn't: asking
(`sensors.arrivals`), or what is done then (`drp_assets.raws`).
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from arrivals.records import DayObsSummary

PRODUCTS = "products"
"""What belongs to no day_obs, or to one that has no partition."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long messages wait for more of their day_obs.

    Parameters
    ----------
    quiescent_s
        How long nothing must have come, so that a day_obs is ingested in few large batches.
    longest_wait_s
        How long a message waits for that; then its day_obs is ingested all the same.
    """

    quiescent_s: float
    longest_wait_s: float = math.inf


@dataclass(frozen=True, slots=True, order=True)
class DueIngest:
    """What to ingest now.

    Parameters
    ----------
    tag
        A day_obs that has a partition, or `PRODUCTS`.
    arriving
        It isn't quiet yet: more is to come.
    """

    tag: str
    arriving: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to ask for, and what to remember of it.

    Parameters
    ----------
    due
        To be asked for, in order.
    arriving
        Day_obs that were asked for while they weren't quiet, and when they were last heard of, in seconds since 1970.
        Each is asked for once more when it is quiet, also if nothing is left to be ingested: only then is it judged.
    """

    due: tuple[DueIngest, ...]
    arriving: Mapping[str, float]


def due_ingests(
    summaries: Iterable[DayObsSummary],
    running: frozenset[str],
    now: dt.datetime,
    pace: Pace,
    has_partition: Callable[[str], bool] = lambda day_obs: True,
    arriving: Mapping[str, float] | None = None,
) -> Decision:
    """Say what to ingest now: what has rows due, no run at it, and has been quiet for a while or waited for too long.

    Parameters
    ----------
    summaries
        The ledger's, a day_obs each.
    running
        Tags of what is being ingested.
    now
        The time.
    pace
        What is a while, and what is too long.
    has_partition
        Whether a day_obs has a partition; one without is ingested with what belongs to none.
    arriving
        What an earlier decision said to remember.
    """
    heard = dict(arriving or {})
    due: dict[str, DueIngest] = {}
    for summary in summaries:
        tag = str(summary.day_obs)
        if summary.day_obs is None or not has_partition(tag):
            tag = PRODUCTS
        last = summary.last_received_at.timestamp()
        if tag in heard:
            last = heard[tag] = max(last, heard[tag])
        if not summary.due or tag in running:
            continue
        if now.timestamp() - last >= pace.quiescent_s:
            due[tag] = DueIngest(tag)
        elif tag not in due and _waited_s(summary, now) >= pace.longest_wait_s:
            due[tag] = DueIngest(tag, arriving=tag != PRODUCTS)
            heard |= {tag: last} if tag != PRODUCTS else {}
    for tag, last in heard.items():
        if tag not in due and tag not in running and now.timestamp() - last >= pace.quiescent_s:
            due[tag] = DueIngest(tag)
    judged = {one.tag for one in due.values() if not one.arriving}
    return Decision(tuple(sorted(due.values())), {tag: last for tag, last in heard.items() if tag not in judged})


def _waited_s(summary: DayObsSummary, now: dt.datetime) -> float:
    return 0.0 if summary.oldest_due_at is None else (now - summary.oldest_due_at).total_seconds()
