"""What the site receives, for all releases: raws by day_obs, and the products that belong to no day_obs.

Belongs here: the assets ``raw`` and ``arrived_products``. Doesn't: how anything is ingested (`arrivals`), or which raws
a release is made from (`drp_assets.inputs`).
"""

from typing import Any

import dagster as dg

from arrivals.ingest import IngestReport, ingest_pending
from arrivals.ledger import Ledger
from arrivals.states import State
from drp_assets.events import one_line_failures
from drp_assets.keys import RAW, SITE_PRODUCTS
from drp_assets.partitions import SITE_DAY_OBS
from resources.butler import open_butler
from resources.site import Site


def build_site_assets(site: Site) -> list[dg.AssetsDefinition]:
    """Build the assets that ingest.

    Parameters
    ----------
    site
        Where things arrive.
    """

    @dg.asset(
        key=RAW,
        partitions_def=SITE_DAY_OBS,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        description="Raws of a day_obs, ingested with their dimensions and visits.",
    )
    def raw(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with one_line_failures():
            return dg.MaterializeResult(metadata=_ingest(site, context, int(context.partition_key)))

    @dg.asset(
        key=SITE_PRODUCTS,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        description="Calibrations, reference catalogues and other products, ingested as they come.",
    )
    def arrived_products(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with one_line_failures():
            return dg.MaterializeResult(metadata=_ingest(site, context, None))

    return [raw, arrived_products]


def _ingest(site: Site, context: dg.AssetExecutionContext, day_obs: int | None) -> dict[str, Any]:
    ledger = Ledger(site.ledger)
    try:
        report: IngestReport = ingest_pending(
            open_butler(site.butler, writeable=True), ledger, site.arrivals, day_obs, undated=day_obs is None
        )
        summary = ledger.by_day_obs().get(day_obs)
    finally:
        ledger.close()
    for problem in report.problems:
        context.log.warning(f"{problem.did} {problem.state}: {problem.reason}")
    return {
        "datasets ingested now": report.datasets,
        "messages ingested": summary.counts[State.INGESTED] if summary else 0,
        "messages waiting": summary.counts[State.WAITING] if summary else 0,
        "messages quarantined": summary.counts[State.QUARANTINED] if summary else 0,
        "bytes announced": summary.bytes if summary else 0,
    }
