"""What the site receives, for all releases: raws by day_obs, and the products that belong to no day_obs.

Belongs here: the assets ``raw`` and ``arrived_products``. Doesn't: how anything is ingested (`arrivals`), or which raws
a release is made from (`drp_assets.inputs`).
"""

from collections.abc import Iterator

import dagster as dg

from arrivals.ingest import ingest_pending
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
        output_required=False,
        partitions_def=SITE_DAY_OBS,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        description="Raws of a day_obs, ingested with their dimensions and visits.",
    )
    def raw(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        yield from _ingest(site, context, int(context.partition_key))

    @dg.asset(
        key=SITE_PRODUCTS,
        output_required=False,
        group_name="arrivals",
        kinds={"butler", "kafka"},
        description="Calibrations, reference catalogues and other products, ingested as they come.",
    )
    def arrived_products(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        yield from _ingest(site, context, None)

    return [raw, arrived_products]


def _ingest(site: Site, context: dg.AssetExecutionContext, day_obs: int | None) -> Iterator[dg.MaterializeResult]:
    """Ingest what is due; what came again only is no news, and releases needn't hear of it."""
    with one_line_failures():
        ledger = Ledger(site.ledger)
        try:
            butler = open_butler(site.butler, writeable=True)
            report = ingest_pending(butler, ledger, site.arrivals, day_obs, undated=day_obs is None)
            summary = ledger.by_day_obs().get(day_obs)
        finally:
            ledger.close()
    for problem in report.problems:
        context.log.warning(f"{problem.did} {problem.state}: {problem.reason}")
    if not report.datasets or summary is None:
        context.log.info("nothing new has come")
        return
    yield dg.MaterializeResult(
        metadata={
            "datasets ingested now": report.datasets,
            "messages ingested": summary.counts[State.INGESTED],
            "messages waiting": summary.counts[State.WAITING],
            "messages quarantined": summary.counts[State.QUARANTINED],
            "bytes announced": summary.bytes,
        }
    )
