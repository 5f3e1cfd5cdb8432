"""The arrivals sensor: drains Kafka into the ledger, and asks for the ingest of each day_obs that has something due.

Belongs here: one tick: what it reads, what it starts, what it says. Doesn't: reading messages, ingesting or judging
(`arrivals`), when to ingest (`sensors.due`), the assets that do (`drp_assets.raws`), or the shape of the reports of
health (`sensors.health`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Self

import dagster as dg
from sqlalchemy.exc import DBAPIError

from arrivals.drain import DrainResult
from arrivals.health import Observation, counted, judge
from arrivals.ledger import Ledger
from arrivals.overview import Overview
from arrivals.records import DayObsSummary
from resources.errors import OperatorError
from resources.site import Site
from sensors.drains import kept_drain
from sensors.due import PRODUCTS, Decision, DueIngest, Pace, due_ingests
from sensors.health import health_events
from sensors.instances import remember_instance

INGEST_TAG = "drp/ingest"
"""Tag of the runs that ingest, which says what of: a day_obs, or ``products``."""

ARRIVING_TAG = "drp/arriving"
"""Tag of those of them that ingest a day_obs of which more is to come."""

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True, slots=True)
class Cursor:
    """What one tick tells the next.

    Parameters
    ----------
    tick
        Counts ticks that were taken note of: a tick that is repeated, because its daemon died, asks for the same runs.
    reported_at
        When health was reported last, seconds since 1970.
    trouble
        Why nothing was drained last time, if so.
    arriving
        As `sensors.due.Decision` has it.
    """

    tick: int = 0
    reported_at: float = 0.0
    trouble: str = ""
    arriving: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Read a cursor; one that somebody has reset or mistyped begins anew."""
        try:
            values = json.loads(text or "{}")
            arriving = {str(tag): float(at) for tag, at in values.get("arriving", {}).items()}
            return cls(int(values["tick"]), float(values["reported_at"]), str(values["trouble"]), arriving)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def ingests_in_progress(instance: dg.DagsterInstance) -> frozenset[str]:
    """Give the tags of what runs are ingesting.

    Parameters
    ----------
    instance
        Dagster's.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return frozenset(tag for run in runs if (tag := run.tags.get(INGEST_TAG)))


def build_arrivals_sensor(
    site: Site, raw: dg.AssetKey, products: dg.AssetKey, health: dg.AssetKey, day_obs: dg.PartitionsDefinition
) -> dg.SensorDefinition:
    """Build the sensor.

    Parameters
    ----------
    site
        Where messages arrive.
    raw, products
        The assets that ingest raws by day_obs, and everything that belongs to no day_obs.
    health
        The asset whose checks say whether arrivals are well.
    day_obs
        The raws' partitions.
    """
    targets: Mapping[bool, dg.AssetKey] = {True: products, False: raw}

    @dg.sensor(
        name="arrivals",
        asset_selection=dg.AssetSelection.assets(raw, products),
        minimum_interval_seconds=site.arrivals.interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reads Hermes messages into the ledger and starts the ingest of what has come.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        remember_instance(context)
        now = dt.datetime.now(dt.UTC)
        before = Cursor.read(context.cursor)
        running = ingests_in_progress(context.instance)
        try:
            tick = _look(site, now, before, running, day_obs.has_partition_key)
        except (OperatorError, DBAPIError) as error:
            # The ledger is away. What Kafka holds is safe there until the next tick.
            said = str(error) if isinstance(error, OperatorError) else f"ledger: {error.orig}"
            context.log.error(said)
            return dg.SensorResult(skip_reason=said, cursor=str(replace(before, tick=before.tick + 1, trouble=said)))
        for warning in tick.warnings:
            context.log.warning(warning)
        context.log.info(tick.news)
        events = health_events(judge(tick.observation, site.arrivals), health) if tick.observation else []
        if not tick.decision.due:
            return dg.SensorResult(skip_reason=tick.news, cursor=str(tick.cursor), asset_events=events)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=f"ingest/{ingest.tag}/{tick.cursor.tick}/{tick.newest_row}",
                    asset_selection=[targets[ingest.tag == PRODUCTS]],
                    partition_key=None if ingest.tag == PRODUCTS else ingest.tag,
                    tags={INGEST_TAG: ingest.tag, **({ARRIVING_TAG: "true"} if ingest.arriving else {})},
                )
                for ingest in tick.decision.due
            ],
            cursor=str(tick.cursor),
            asset_events=events,
        )

    return arrivals


@dataclass(frozen=True, slots=True)
class _Tick:
    cursor: Cursor
    decision: Decision
    newest_row: int
    news: str
    warnings: tuple[str, ...]
    observation: Observation | None


def _look(
    site: Site, now: dt.datetime, before: Cursor, running: frozenset[str], has_partition: Callable[[str], bool]
) -> _Tick:
    ledger = Ledger(site.ledger)
    try:
        drained, trouble = _drain(site, ledger)
        summaries = ledger.by_day_obs(unfinished_only=True, now=now).values()
        reports = _is_due(before, trouble, now, site.arrivals.health_interval_s)
        lag = None if drained is None or drained.held_back else {site.arrivals.topics: drained.lag}
        seen = Observation(now, Overview(ledger).states(), lag, trouble) if reports else None
    finally:
        ledger.close()
    pace = Pace(site.arrivals.quiescent_s, site.arrivals.longest_wait_s)
    decision = due_ingests(summaries, running, now, pace, has_partition, before.arriving)
    reported_at = now.timestamp() if reports else before.reported_at
    cursor = Cursor(before.tick + 1, reported_at, trouble, decision.arriving)
    newest_row = max((summary.newest_row for summary in summaries), default=0)
    news = _news(drained, trouble, summaries, decision.due, running)
    warnings = drained.notices if drained is not None else (trouble,)
    return _Tick(cursor, decision, newest_row, news, warnings, seen)


def _drain(site: Site, ledger: Ledger) -> tuple[DrainResult | None, str]:
    """Drain; with Kafka away, say why not: what the ledger holds can be ingested meanwhile."""
    try:
        result = kept_drain(site).drain(ledger)
    except OperatorError as error:
        return None, str(error)
    return result, "; ".join(result.notices) if result.held_back else ""


def _is_due(before: Cursor, trouble: str, now: dt.datetime, interval_s: float) -> bool:
    return now.timestamp() - before.reported_at >= interval_s or bool(trouble) != bool(before.trouble)


def _news(
    drained: DrainResult | None,
    trouble: str,
    summaries: Iterable[DayObsSummary],
    due: Sequence[DueIngest],
    running: frozenset[str],
) -> str:
    """What the tick has to say, in one line: read, left, waiting, started, being ingested."""
    said = []
    if trouble or drained is None:
        said.append(trouble)
    else:
        said.append(f"{counted(drained.rows + drained.events, 'message')} read, {drained.lag:,} left in Kafka")
    unfinished = sum(summary.unfinished for summary in summaries)
    said.append(f"{unfinished:,} to be ingested or waiting" if unfinished else "all that came is settled")
    if running:
        said.append(f"being ingested: {', '.join(sorted(running))}")
    asked = ", ".join(f"{one.tag}, of which more is to come" if one.arriving else one.tag for one in due)
    said.append(f"asking for {asked}" if asked else "nothing is due")
    return "; ".join(said)
