"""Whether arrivals are well, as checks: the site's health, and how complete each day_obs is.

Belongs here: the asset ``arrivals`` and its checks, and the check of ``raw``. Doesn't: judging (`arrivals.health`,
`arrivals.completeness`), or reporting health between runs (`sensors.arrivals`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from arrivals.completeness import DayCompleteness, Readiness, ranges
from arrivals.health import FINDINGS, judge, observe
from arrivals.ledger import Ledger
from arrivals.overview import Overview
from drp_assets.events import log_check, one_line_failures
from drp_assets.keys import COMPLETE, RAW
from drp_assets.partitions import SITE_DAY_OBS
from resources.site import Site
from sensors.health import metadata_of, severity_of

ARRIVALS = dg.AssetKey("arrivals")
"""The ledger as a whole: nothing materialises it, its checks say whether arrivals are well."""

_NAMED_EXPOSURES = 20


def raw_complete_spec() -> dg.AssetCheckSpec:
    """Give the check of ``raw``."""
    return dg.AssetCheckSpec(
        COMPLETE,
        asset=RAW,
        partitions_def=SITE_DAY_OBS,
        description="All detectors of all exposures that were announced are in the Butler.",
    )


def arrivals_spec(owner: str) -> dg.AssetSpec:
    """Give the asset that stands for the ledger.

    Parameters
    ----------
    owner
        Who looks after arrivals.
    """
    return dg.AssetSpec(
        ARRIVALS,
        group_name="arrivals",
        kinds={"kafka"},
        owners=[owner],
        description="Messages on their way: from Kafka into the ledger, from the ledger into the Butler.",
    )


def build_arrival_checks(site: Site) -> dg.AssetChecksDefinition:
    """Build the checks of ``arrivals``, to be run by hand; the arrivals sensor reports the same ones by itself.

    Parameters
    ----------
    site
        Where things arrive; its profile has the limits.
    """

    @dg.multi_asset_check(
        name="arrivals_health",
        specs=[dg.AssetCheckSpec(name, asset=ARRIVALS, description=about) for name, about in FINDINGS.items()],
        can_subset=False,
    )
    def arrivals_health() -> Iterator[dg.AssetCheckResult]:
        with one_line_failures():
            ledger = Ledger(site.ledger)
            try:
                seen = observe(site.kafka, site.arrivals, ledger, Overview(ledger))
            finally:
                ledger.close()
        for finding in judge(seen, site.arrivals):
            yield dg.AssetCheckResult(
                passed=finding.passed,
                asset_key=ARRIVALS,
                check_name=finding.name,
                metadata=metadata_of(finding),
                severity=severity_of(finding),
                description=finding.message,
            )

    return arrivals_health


def log_completeness(context: dg.AssetExecutionContext, site: Site, day: DayCompleteness) -> None:
    """Record what is here of a day_obs as the check of ``raw``: not an error while things arrive.

    Parameters
    ----------
    context
        The run's.
    site
        Its profile says how long a day_obs must be quiet.
    day
        What was found.
    """
    readiness = day.readiness(datetime.now(UTC), site.arrivals.quiescent_s)
    arriving = readiness is Readiness.ARRIVING
    log_check(
        context,
        RAW,
        COMPLETE,
        str(day.day_obs),
        passed=day.complete,
        metadata=_completeness_metadata(day, readiness),
        severity=dg.AssetCheckSeverity.WARN if arriving else dg.AssetCheckSeverity.ERROR,
        description=_sentence(day, readiness),
    )


def _sentence(day: DayCompleteness, readiness: Readiness) -> str:
    said = f"{readiness}: {day.arrived:,} of {day.expected:,} raws"
    if day.incomplete:
        first = day.incomplete[0]
        lacks = f" lacks {ranges(first.missing)}" if first.missing else " has none"
        more = f" and {len(day.incomplete) - 1:,} others are incomplete" if len(day.incomplete) > 1 else ""
        said += f"; exposure {first.exposure}{lacks}{more}"
    return "; ".join((said, *day.remarks))


def _completeness_metadata(day: DayCompleteness, readiness: Readiness) -> dict[str, Any]:
    lines = ["| exposure | arrived | missing detectors, and why |", "|---|---|---|"]
    for exposure in day.incomplete[:_NAMED_EXPOSURES]:
        why = "; ".join(f"{ranges(detectors)}: {what}" for what, detectors in exposure.why_missing.items())
        arrived = f"{len(exposure.arrived)}/{len(exposure.expected) or '?'}"
        lines.append(f"| {exposure.exposure} | {arrived} | {why.replace('|', '/') or 'all'} |")
    if len(day.incomplete) > _NAMED_EXPOSURES:
        lines.append(f"| … | | `drp ingest day {day.day_obs}` lists all |")
    return {
        "readiness": str(readiness),
        "raws expected": day.expected,
        "raws arrived": day.arrived,
        "exposures": len(day.exposures),
        "exposures incomplete": len(day.incomplete),
        "messages unfinished": day.unfinished,
        "messages quarantined": sum(exposure.quarantined for exposure in day.exposures),
        "remarks": "; ".join(day.remarks) or "none",
        "half-arrived exposures": dg.MetadataValue.md("\n".join(lines)),
    }
