"""What came of a submission, as materialisations, checks and a table of what failed.

Belongs here: turning an `Outcome` into Dagster's events, partial success included. Doesn't: finding out what happened
(`launchers.outcome`), or the science's metrics (`drp_assets.scorecard`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from drp_assets.events import log_check, log_materialization, recorded_metadata
from drp_assets.keys import COMPLETE, ProductAsset
from drp_assets.pictures import link
from launchers.attempts import Attempt, attempts_of, current_work
from launchers.causes import describe, place_of
from launchers.folders import writing
from launchers.outcome import DatasetCount, Outcome, QuantumFailure
from planning.release import Release
from resources.site import Site
from validation.counts import CheckResult, Severity, check_counts
from validation.report import FailedQuantum

_SHOWN_FAILURES = 5
_COUNT = "datasets"
_PARTITION = "partition"


def report_outcome(
    context: dg.AssetExecutionContext,
    site: Site,
    release: Release,
    assets: Sequence[ProductAsset],
    partitions: Sequence[str],
    outcome: Outcome,
    pictures: Mapping[tuple[str, str], Mapping[str, Any]],
    *,
    anew: bool = True,
) -> None:
    """Record each product's partitions: what is there is materialised, also when something failed.

    Parameters
    ----------
    context
        The run's.
    site, release
        Where, what for.
    assets
        The step's assets.
    partitions
        Keys of the run; one empty key for a step that runs whole.
    outcome
        What happened.
    pictures
        What checks show besides numbers, by dataset type and partition.
    anew
        Whether what is recorded with the same counts is recorded once more, so that all that follows is made again.
    """
    table = write_failures(_table(site, release, outcome.run_collection.replace("/", "_")), outcome.failures)
    for partition in partitions:
        # Its products are recorded together, which is what automation takes for granted.
        is_news = anew or not _is_recorded(context, assets, partition, outcome)
        part = outcome.within(partition)
        for asset in assets:
            _report_partition(context, site, release, asset, partition, part, table, pictures, is_news=is_news)


def fail_if_nothing_worked(outcome: Outcome) -> None:
    """End the run as a failure where a submission has done nothing.

    Parameters
    ----------
    outcome
        What happened.

    Raises
    ------
    dagster.Failure
        Nothing worked: the first cause is its description.
    """
    if outcome.worked:
        return
    first = outcome.failures[0] if outcome.failures else None
    raise dg.Failure(
        f"nothing worked: {_one_line(first)}" if first else "nothing worked, and no quantum says why",
        metadata={"failed quanta": _failure_table(outcome.failures)},
        allow_retries=False,
    )


def write_failures(path: Path, failures: Sequence[QuantumFailure]) -> Path:
    """Write the table of failed quanta beside the reports.

    Parameters
    ----------
    path
        CSV file; its folder is made.
    failures
        One row each.
    """
    rows = [[f.task, _data_id(f), f.exception, f.message, f.node, _memory(f), f.log, f.partition] for f in failures]
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "data_id", "exception", "message", "node", "memory_mb", "log", _PARTITION])
            writer.writerows(rows)
    return path


def read_failures(site: Site, release: Release) -> list[FailedQuantum]:
    """Read what has failed and was not made good since: neither rescued nor done again as a whole.

    Parameters
    ----------
    site, release
        Whose reports.
    """
    by_step: dict[str, list[Attempt]] = {}
    for attempt in attempts_of(site.submissions, release.name):
        by_step.setdefault(attempt.key.step, []).append(attempt)
    failures = []
    for work in (work for attempts in by_step.values() for work in current_work(attempts)):
        # The latest one tells what all of them have left; one that has not ended has none yet.
        tables = (_table(site, release, attempt.key.name) for attempt in reversed(work.attempts))
        table = next((each for each in tables if each.is_file()), None)
        if table is None:
            continue
        with table.open(newline="", encoding="utf-8") as file:
            rows = [(row.pop(_PARTITION), FailedQuantum(**row)) for row in csv.DictReader(file)]
        failures += [failure for partition, failure in rows if partition in {"", *work.partitions}]
    return failures


def _table(site: Site, release: Release, submission: str) -> Path:
    return site.reports / release.name / "failed-quanta" / f"{submission}.csv"


def _is_recorded(
    context: dg.AssetExecutionContext, assets: Sequence[ProductAsset], partition: str, outcome: Outcome
) -> bool:
    """Whether Dagster knows of a partition all that there is."""
    for asset in assets:
        made = _made(asset, partition, outcome)
        recorded = recorded_metadata(context, asset.key, partition or None).get(_COUNT)
        if _is_done(made, outcome) and (recorded is None or recorded.value != made.count):
            return False
    return True


def _made(asset: ProductAsset, partition: str, outcome: Outcome) -> DatasetCount:
    return outcome.datasets.get((asset.dataset_type, partition, asset.band), DatasetCount())


def _is_done(made: DatasetCount, outcome: Outcome) -> bool:
    # A partition of which nothing was expected is as done as it will be: what depends on it needn't wait.
    return bool(made.count or (outcome.worked and not made.expected))


def _report_partition(
    context: dg.AssetExecutionContext,
    site: Site,
    release: Release,
    asset: ProductAsset,
    partition: str,
    outcome: Outcome,
    table: Path,
    pictures: Mapping[tuple[str, str], Mapping[str, Any]],
    *,
    is_news: bool,
) -> None:
    made = _made(asset, partition, outcome)
    key = partition or None
    if is_news and _is_done(made, outcome):
        log_materialization(context, asset.key, key, _metadata(site, asset, outcome, made, table))
    for result in check_counts(
        asset.dataset_type,
        {partition: made.expected},
        {partition: made.count},
        least_fraction=release.validation.least_product_fraction,
    ):
        metadata = {
            "expected": made.expected,
            "found": made.count,
            **pictures.get((asset.dataset_type, partition), {}),
        }
        # What is held for somebody to decide holds what depends on it, however much of it succeeded.
        is_error = result.severity is Severity.ERROR or bool(outcome.held)
        severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
        log_check(
            context,
            asset.key,
            COMPLETE,
            key,
            passed=result.passed and outcome.worked and not outcome.held,
            metadata=metadata,
            severity=severity,
            description=_described(result, outcome),
        )


def _described(result: CheckResult, outcome: Outcome) -> str:
    """Say how much is there, and where that isn't all, the most frequent cause: a check is looked at first."""
    held = len(outcome.held)
    said = result.message
    if held:
        said = f"{held} failure{' is' if held == 1 else 's are'} held for somebody to decide"
    if (result.passed and not held) or not outcome.judgements:
        return said
    first, *others = describe(outcome.judgements)
    more = " (it isn't the only cause: see `failures` of the partition)" if others else ""
    return f"{said}. {first}{more}"


def _metadata(site: Site, asset: ProductAsset, outcome: Outcome, made: DatasetCount, table: Path) -> dict[str, Any]:
    task = outcome.tasks.get(asset.product.task) if asset.product else None
    return {
        # First, as it is what somebody who comes because of a failure looks for.
        "failures": dg.MetadataValue.md("\n".join(f"* {line}" for line in describe(outcome.judgements)) or "none"),
        _COUNT: made.count,
        "datasets expected": made.expected,
        "bytes": made.bytes,
        "quanta done": task.succeeded if task else 0,
        "quanta failed": task.failed if task else 0,
        "quanta with caveats": task.caveats if task else 0,
        "cpu hours": outcome.cpu_s / 3600,
        "peak memory (MB)": outcome.peak_memory_mb,
        "wall time (s)": outcome.wall_s,
        "collection": outcome.run_collection,
        "failed quanta": link(site, table),
    }


def _failure_table(failures: Sequence[QuantumFailure]) -> dg.MetadataValue:
    lines = ["| task | data ID | exception | message | node | memory (MB) | log |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {f.task} | {_data_id(f)} | {f.exception} | {f.message} | {f.node} | {_memory(f)} | {f.log} |"
        for f in failures[:_SHOWN_FAILURES]
    ]
    return dg.MetadataValue.md("\n".join(lines))


def _data_id(failure: QuantumFailure) -> str:
    return ", ".join(f"{key}={value}" for key, value in failure.data_id.items())


def _memory(failure: QuantumFailure) -> str:
    return f"{failure.memory_mb:.0f}" if failure.memory_mb else ""


def _one_line(failure: QuantumFailure) -> str:
    return (
        f"{failure.task} {_data_id(failure)}: {failure.exception}: {failure.message}"
        f"{place_of(failure)}, log {failure.log or 'none'}"
    )
