"""What the site receives, for all releases: raws by day_obs, and the products that belong to no day_obs.

Belongs here: the assets ``raw`` and ``arrived_products``. Doesn't: how anything is ingested (`arrivals`), whether it is
complete (`drp_assets.arrival_checks`), or which raws a release is made from (`drp_assets.inputs`). Definitions load
without the middleware, whose import takes seconds: it comes in when something is ingested.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from arrivals.ledger import Ledger
from arrivals.records import DayObsSummary
from arrivals.states import State
from drp_assets.arrival_checks import arrivals_spec, log_completeness, raw_complete_spec
from drp_assets.events import one_line_failures, output_for
from drp_assets.keys import RAW, SITE_PRODUCTS
from drp_assets.partitions import SITE_DAY_OBS
from resources.butler import open_butler
from resources.site import Site
from sensors.arrivals import ARRIVING_TAG

if TYPE_CHECKING:
    from lsst.daf.butler import Butler

    from arrivals.ingest import IngestReport

OWNER = "team:arrivals"
"""Who looks after what the site receives."""


def build_site_assets(site: Site) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Build the assets that ingest, and the one that stands for what is on its way.

    Parameters
    ----------
    site
        Where things arrive.
    """
    complete = raw_complete_spec()

    @dg.asset(
        key=RAW,
        output_required=False,
        partitions_def=SITE_DAY_OBS,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        owners=[OWNER],
        check_specs=[complete],
        description="Raws of a day_obs, ingested with their dimensions and visits.",
    )
    def raw(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from arrivals.completeness import day_completeness
        from arrivals.ingest import ingest_pending

        day_obs = int(context.partition_key)
        arriving = ARRIVING_TAG in context.run.tags
        with _opened(site) as (butler, ledger):
            report = ingest_pending(butler, ledger, site.arrivals, day_obs)
            summary = ledger.of_day_obs(day_obs)
            found = day_completeness(butler, ledger, site.arrivals, day_obs)
        has_news = _has_news(context, [report])
        metadata = _metadata([report], summary)
        if arriving and has_news:
            # Releases make their inputs anew whenever this is materialised: not of a part of a night every few minutes.
            context.log_event(dg.AssetObservation(RAW, partition=context.partition_key, metadata=metadata))
        elif not arriving and (has_news or _is_owed(context.instance, context.partition_key)):
            yield dg.MaterializeResult(metadata=metadata)
        log_completeness(context, site, found)
        yield output_for(complete.key)

    @dg.asset(
        key=SITE_PRODUCTS,
        output_required=False,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        owners=[OWNER],
        description="Calibrations, reference catalogues and other products, and raws of any day_obs that has no "
        "partition, ingested as they come.",
    )
    def arrived_products(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from arrivals.ingest import ingest_pending

        with _opened(site) as (butler, ledger):
            reports = [ingest_pending(butler, ledger, site.arrivals, undated=True)]
            unfinished = ledger.by_day_obs(unfinished_only=True)
            for day_obs in _without_partition(unfinished):
                reports.append(ingest_pending(butler, ledger, site.arrivals, day_obs))
            summary = ledger.of_day_obs(None)
        if _has_news(context, reports):
            yield dg.MaterializeResult(metadata=_metadata(reports, summary))

    return [raw, arrived_products, arrivals_spec(OWNER)]


@contextmanager
def _opened(site: Site) -> "Iterator[tuple[Butler, Ledger]]":
    """The site's Butler and ledger, while a run needs them; an operator's error ends the run with its line."""
    with one_line_failures():
        ledger = Ledger(site.ledger)
        try:
            yield open_butler(site.butler, writeable=True), ledger
        finally:
            ledger.close()


def _without_partition(summaries: Mapping[int | None, DayObsSummary]) -> list[int]:
    days = [day_obs for day_obs, summary in summaries.items() if day_obs is not None and summary.due]
    return sorted(d for d in days if not SITE_DAY_OBS.has_partition_key(str(d)))


def _is_owed(instance: dg.DagsterInstance, partition: str) -> bool:
    """Whether raws were ingested while more was to come, and the partition wasn't materialised since."""
    wanted = dg.AssetRecordsFilter(RAW, asset_partitions=[partition])
    ingested = instance.fetch_observations(wanted, limit=1).records
    materialized = instance.fetch_materializations(wanted, limit=1).records
    return bool(ingested) and (not materialized or materialized[0].storage_id < ingested[0].storage_id)


def _has_news(context: dg.AssetExecutionContext, reports: "list[IngestReport]") -> bool:
    """Whether anything was ingested; what came again only is no news, and releases needn't hear of it."""
    for report in reports:
        for line in (*report.conflict_lines, *map(str, report.problems)):
            context.log.warning(line)
    if not any(report.datasets for report in reports):
        context.log.info("nothing new has come")
        return False
    return True


def _metadata(reports: "list[IngestReport]", summary: DayObsSummary | None) -> dict[str, int]:
    counts = summary.counts if summary is not None else dict.fromkeys(State, 0)
    return {
        "datasets ingested now": sum(report.datasets for report in reports),
        "bytes ingested now": sum(report.bytes for report in reports),
        "visits in conflict now": sum(len(report.conflicts) for report in reports),
        "messages ingested": counts[State.INGESTED],
        "messages waiting": counts[State.WAITING],
        "messages quarantined": counts[State.QUARANTINED],
        "bytes announced": summary.bytes if summary is not None else 0,
    }
