"""The arrivals sensor: drains Kafka into the ledger, and asks for the ingest of each day_obs that has something due.

Belongs here: one tick. Doesn't: reading messages or ingesting (`arrivals`), the assets that ingest (`drp_assets.raws`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import dagster as dg

from arrivals.drain import drain
from arrivals.ledger import Ledger
from arrivals.records import DayObsSummary
from resources.errors import OperatorError
from resources.site import Site

INGEST_TAG = "drp/ingest"
"""Tag of the runs that ingest, which says what of: a day_obs, or ``products``."""

PRODUCTS = "products"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def due_ingests(
    summaries: Iterable[DayObsSummary], running: frozenset[str], now: dt.datetime, quiescent_s: float
) -> list[str]:
    """Say what to ingest now: what has rows due, no run at it, and has been quiet for a while.

    Parameters
    ----------
    summaries
        The ledger's, a day_obs each.
    running
        Tags of what is being ingested.
    now
        The time.
    quiescent_s
        How long nothing must have come, so that a day_obs is ingested in few large batches.
    """
    due = []
    for summary in summaries:
        tag = PRODUCTS if summary.day_obs is None else str(summary.day_obs)
        quiet_s = (now - summary.last_received_at).total_seconds()
        if summary.due and tag not in running and quiet_s >= quiescent_s:
            due.append(tag)
    return sorted(due)


def ingests_in_progress(instance: dg.DagsterInstance) -> frozenset[str]:
    """Give the tags of what runs are ingesting.

    Parameters
    ----------
    instance
        Dagster's.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return frozenset(tag for run in runs if (tag := run.tags.get(INGEST_TAG)))


def build_arrivals_sensor(site: Site, raw: dg.AssetKey, products: dg.AssetKey) -> dg.SensorDefinition:
    """Build the sensor.

    Parameters
    ----------
    site
        Where messages arrive.
    raw, products
        The assets that ingest raws by day_obs, and everything that belongs to no day_obs.
    """
    targets: Mapping[bool, dg.AssetKey] = {True: products, False: raw}

    @dg.sensor(
        name="arrivals",
        asset_selection=dg.AssetSelection.assets(raw, products),
        minimum_interval_seconds=site.arrivals.interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reads Hermes messages into the ledger and starts the ingest of what has come.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ledger = Ledger(site.ledger)
        try:
            result = drain(site.kafka, site.arrivals, ledger)
            news = f"{result.rows} new messages, {result.lag} still in Kafka"
            for notice in result.notices:
                context.log.warning(notice)
        except OperatorError as error:
            # What Kafka holds is safe there until the next tick; what the ledger holds can be ingested meanwhile.
            news = str(error)
            context.log.error(news)
        summaries = ledger.by_day_obs()
        ledger.close()
        now = dt.datetime.now(dt.UTC)
        due = due_ingests(summaries.values(), ingests_in_progress(context.instance), now, site.arrivals.quiescent_s)
        if not due:
            return dg.SkipReason(f"{news}; nothing is due")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    asset_selection=[targets[tag == PRODUCTS]],
                    partition_key=None if tag == PRODUCTS else tag,
                    tags={INGEST_TAG: tag},
                )
                for tag in due
            ]
        )

    return arrivals
