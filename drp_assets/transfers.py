"""Transfers to this site in numbers and pictures: efficiency, rate and volume by pair of RSEs and hour.

Belongs here: the asset ``transfers`` and its check. Doesn't: the arithmetic (`arrivals.transfers`), the drawing
(`drp_assets.transfer_figures`), or when it is made anew (`sensors.transfers`).
"""

import base64
import csv
import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from arrivals.ledger import Ledger
from arrivals.records import TransferCount
from arrivals.transfers import (
    RsePair,
    TransferStatistics,
    by_pair,
    by_pair_and_hour,
    total,
)
from drp_assets.events import one_line_failures
from drp_assets.pictures import link
from drp_assets.raws import OWNER
from resources.site import Site

TRANSFERS = dg.AssetKey("transfers")
"""Statistics of transfers, a partition a day."""

TRANSFER_DAYS = dg.DailyPartitionsDefinition("2025-06-01", end_offset=1, timezone="UTC")
"""Days from midnight to midnight UTC: transfers go on by day as by night."""

EFFICIENCY = "efficiency"
DAY_S = 86400.0
_SHOWN_PAIRS = 30


def build_transfers(site: Site) -> dg.AssetsDefinition:
    """Build the asset ``transfers``.

    Parameters
    ----------
    site
        Its ledger counts the events; its reports folder takes table and figure.
    """

    @dg.asset(
        key=TRANSFERS,
        partitions_def=TRANSFER_DAYS,
        group_name="arrivals",
        kinds={"kafka", "report"},
        owners=[OWNER],
        check_specs=[
            dg.AssetCheckSpec(
                EFFICIENCY,
                asset=TRANSFERS,
                partitions_def=TRANSFER_DAYS,
                description="Share of the day's transfers that succeeded, of all pairs of RSEs together.",
            )
        ],
        description="Efficiency, rate and volume of transfers by pair of RSEs and hour of a day (UTC), as Rucio's "
        "messages tell them.",
    )
    def transfers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        counts = _counts(site, context.partition_key)
        day = total(by_pair(counts).values())
        return dg.MaterializeResult(
            metadata=_metadata(site, context.partition_key, counts, day),
            check_results=[_efficiency_check(counts, day, site.arrivals.min_transfer_efficiency)],
        )

    return transfers


def _counts(site: Site, partition: str) -> list[TransferCount]:
    start = dt.datetime.fromisoformat(partition).replace(tzinfo=dt.UTC)
    with one_line_failures():
        ledger = Ledger(site.ledger)
        try:
            return ledger.transfers(since=start, until=start + dt.timedelta(days=1))
        finally:
            ledger.close()


def _metadata(site: Site, partition: str, counts: Sequence[TransferCount], day: TransferStatistics) -> dict[str, Any]:
    folder = site.reports / "transfers"
    table = _write_table(folder / f"{partition}.csv", by_pair_and_hour(counts))
    metadata = {
        "transfers done": day.done,
        "transfers failed": day.failed,
        "other events": day.others,
        "volume (bytes)": day.bytes,
        "throughput (MB/s)": day.throughput_bytes_per_s(DAY_S) / 1e6,
        "not computable": day.silence or "nothing",
        "pairs of RSEs": dg.MetadataValue.md(pair_table(by_pair(counts))),
        "by pair and hour": link(site, table),
    }
    if day.efficiency is not None:
        metadata["efficiency"] = day.efficiency
    if day.rate_bytes_per_s is not None:
        metadata["mean rate of a transfer (MB/s)"] = day.rate_bytes_per_s / 1e6
    if day.done or day.failed:
        from drp_assets.transfer_figures import draw_transfers  # definitions load without what draws
        from validation.figures.style import save

        picture = save(draw_transfers(partition, by_pair_and_hour(counts)), folder, partition)
        kind = "png" if picture.thumbnail.suffix == ".png" else "jpeg"
        inline = base64.b64encode(picture.thumbnail.read_bytes()).decode()
        metadata["picture"] = dg.MetadataValue.md(f"![transfers of {partition}](data:image/{kind};base64,{inline})")
        metadata["figure"] = link(site, picture.path)
    return metadata


def pair_table(pairs: Mapping[RsePair, TransferStatistics]) -> str:
    """Write statistics of pairs of RSEs as a table, those with the largest volume first.

    Parameters
    ----------
    pairs
        Statistics by pair.
    """
    lines = [
        "| from → to | done | failed | efficiency | volume (GB) | mean rate (MB/s) | other events |",
        "|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(pairs.items(), key=lambda item: (-item[1].bytes, item[0]))
    for pair, found in ordered[:_SHOWN_PAIRS]:
        name = str(pair).replace("|", "/")
        rate = None if found.rate_bytes_per_s is None else found.rate_bytes_per_s / 1e6
        lines.append(
            f"| {name} | {found.done:,} | {found.failed:,} | {_number(found.efficiency, '.3f')} "
            f"| {found.bytes / 1e9:,.3f} | {_number(rate, ',.1f')} | {found.others:,} |"
        )
    if len(ordered) > _SHOWN_PAIRS:
        lines.append(f"| {len(ordered) - _SHOWN_PAIRS} more in the table of pairs and hours | | | | | | |")
    return "\n".join(lines)


def _efficiency_check(counts: Sequence[TransferCount], day: TransferStatistics, least: float) -> dg.AssetCheckResult:
    if day.efficiency is None:
        # Nothing ended is no fault of anybody's: a day without transfers is as it should be.
        return dg.AssetCheckResult(
            passed=True,
            check_name=EFFICIENCY,
            metadata={"limit": least},
            description="not computable: no transfer ended",
        )
    known = {pair: found for pair, found in by_pair(counts).items() if found.efficiency is not None}
    worst = min(known, key=lambda pair: (known[pair].efficiency or 0.0, pair))
    return dg.AssetCheckResult(
        passed=day.efficiency >= least,
        check_name=EFFICIENCY,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"found": day.efficiency, "limit": least},
        description=f"{day.done:,} of {day.done + day.failed:,} transfers succeeded; the worst pair is {worst} with "
        f"{known[worst].failed:,} of {known[worst].done + known[worst].failed:,} failed",
    )


def _write_table(path: Path, hours: Mapping[tuple[RsePair, dt.datetime], TransferStatistics]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "source",
                "destination",
                "hour",
                "done",
                "failed",
                "efficiency",
                "bytes",
                "mean_rate_bytes_per_s",
                "others",
            ]
        )
        for (pair, hour), found in hours.items():
            writer.writerow(
                [
                    *(pair.source, pair.destination, hour.isoformat(), found.done, found.failed),
                    *(found.efficiency, found.bytes, found.rate_bytes_per_s, found.others),
                ]
            )
    return path


def _number(value: float | None, form: str) -> str:
    return "not computable" if value is None else format(value, form)
