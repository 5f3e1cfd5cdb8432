"""Health of arrivals as Dagster's events: a check for each thing that is judged, and the numbers to plot.

Belongs here: the shape of the events. Doesn't: judging (`arrivals.health`), or when it is done (`sensors.arrivals`,
`drp_assets.arrival_checks`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from arrivals.health import INGEST_DELAY, KAFKA_LAG, Finding

_STANDSTILL = frozenset({KAFKA_LAG, INGEST_DELAY})
"""Findings that mean that nothing moves; the others are about single messages."""


def health_events(
    findings: Iterable[Finding], asset: dg.AssetKey
) -> list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Report findings without a run: one observation of all numbers, and a check each.

    Parameters
    ----------
    findings
        Of one moment.
    asset
        Whose checks they are.
    """
    findings = list(findings)
    numbers = {f"{finding.name} ({finding.unit})": finding.value for finding in findings if finding.value is not None}
    return [
        dg.AssetObservation(asset, metadata=numbers),
        *(
            dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=finding.name,
                passed=finding.passed,
                metadata=metadata_of(finding),
                severity=severity_of(finding),
                description=finding.message,
            )
            for finding in findings
        ),
    ]


def metadata_of(finding: Finding) -> dict[str, Any]:
    """Give a finding's numbers, under the same keys each time.

    Parameters
    ----------
    finding
        What was judged.
    """
    found = {} if finding.value is None else {f"found ({finding.unit})": finding.value}
    return {**found, f"limit ({finding.unit})": finding.limit}


def severity_of(finding: Finding) -> dg.AssetCheckSeverity:
    """Say how bad it is if it didn't pass: an error where nothing moves.

    Parameters
    ----------
    finding
        What was judged.
    """
    return dg.AssetCheckSeverity.ERROR if finding.name in _STANDSTILL else dg.AssetCheckSeverity.WARN
