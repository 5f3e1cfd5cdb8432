"""The transfers sensor: asks for the statistics of each day about whose transfers something new was heard.

Belongs here: one tick. Doesn't: counting events (`arrivals.ledger`), or the statistics (`drp_assets.transfers`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping

import dagster as dg
from sqlalchemy.exc import DBAPIError

from arrivals.ledger import Ledger
from arrivals.overview import Overview
from resources.errors import OperatorError
from resources.site import Site

LOOKS_BACK = dt.timedelta(days=60)
"""Events that are older when they come change statistics only if somebody asks for it."""

MOST_DAYS = 7
"""So many days are asked for at a time, the newest first; the others follow."""


def changed_days(
    counts: Mapping[str, int], known: Mapping[str, int], has_partition: Callable[[str], bool]
) -> list[str]:
    """Say about which days something new was heard, the newest first.

    Parameters
    ----------
    counts
        Events by day, as they are now.
    known
        As they were when the statistics were last asked for.
    has_partition
        Whether a day is one of the asset's.
    """
    changed = [day for day, count in counts.items() if count != known.get(day) and has_partition(day)]
    return sorted(changed, reverse=True)[:MOST_DAYS]


def looked_at_since(now: dt.datetime) -> dt.datetime:
    """The midnight from which on events are counted: a day that is counted in part changes as time goes by."""
    return (now - LOOKS_BACK).replace(hour=0, minute=0, second=0, microsecond=0)


def build_transfers_sensor(site: Site, transfers: dg.AssetKey, days: dg.PartitionsDefinition) -> dg.SensorDefinition:
    """Build the sensor.

    Parameters
    ----------
    site
        Where events are counted.
    transfers
        The asset of statistics.
    days
        Its partitions.
    """

    @dg.sensor(
        name="transfers",
        asset_selection=dg.AssetSelection.assets(transfers),
        minimum_interval_seconds=site.arrivals.transfers_interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the statistics of each day about whose transfers something new was heard.",
    )
    def transfers_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        known = _read(context.cursor)
        try:
            ledger = Ledger(site.ledger)
            try:
                counts = Overview(ledger).transfer_days(looked_at_since(now))
            finally:
                ledger.close()
        except (OperatorError, DBAPIError) as error:
            said = str(error) if isinstance(error, OperatorError) else f"ledger: {error.orig}"
            context.log.error(said)
            return dg.SensorResult(skip_reason=said)
        changed = changed_days(counts, known, days.has_partition_key)
        if not changed:
            return dg.SensorResult(
                skip_reason=f"nothing new about transfers; {sum(counts.values()):,} events in 60 days"
            )
        cursor = {day: count for day, count in (known | {day: counts[day] for day in changed}).items() if day in counts}
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"transfers/{day}/{counts[day]}", partition_key=day, asset_selection=[transfers])
                for day in changed
            ],
            cursor=json.dumps(cursor),
        )

    return transfers_sensor


def _read(cursor: str | None) -> dict[str, int]:
    try:
        return {str(day): int(count) for day, count in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}
