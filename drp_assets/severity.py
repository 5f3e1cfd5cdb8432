"""Which findings of a check stop what depends on the asset: an error does, a warning doesn't.

Dagster's own conditions ask only whether a check has passed. A night of which three quanta in fifty thousand failed
has not passed, and goes on all the same.

Belongs here: that condition, and the question behind it. Doesn't: which findings are errors (`drp_assets.reporting`),
or what else a partition waits for (`drp_assets.automation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.asset_graph_view.entity_subset import EntitySubset
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus


class Severities:
    """How bad the latest finding of a check is, remembered as long as no newer one is there."""

    def __init__(self) -> None:
        self._known: dict[tuple[dg.AssetCheckKey, str | None], tuple[int, bool]] = {}

    def errors(
        self, instance: dg.DagsterInstance, check: dg.AssetCheckKey, partitions: Iterable[str | None]
    ) -> frozenset[str | None]:
        """Give those partitions whose latest finding is an error.

        Parameters
        ----------
        instance
            Dagster's.
        check
            The check.
        partitions
            In which it has failed; None where it has no partitions.
        """
        storage = instance.event_log_storage
        found = set()
        wanted = frozenset(partitions)
        for info in storage.get_asset_check_partition_info([check]) if wanted else ():
            partition, latest = info.partition_key, info.latest_check_event_storage_id
            if partition not in wanted:
                continue
            before = self._known.get((check, partition))
            if before is None or before[0] != latest:
                self._known[check, partition] = before = (latest, self._ask(instance, check, partition))
            if before[1]:
                found.add(partition)
        return frozenset(found)

    def _ask(self, instance: dg.DagsterInstance, check: dg.AssetCheckKey, partition: str | None) -> bool:
        records = instance.event_log_storage.get_asset_check_execution_history(
            check, limit=1, partition_filter=PartitionKeyFilter(key=partition)
        )
        evaluation = records[0].evaluation if records else None
        return not isinstance(evaluation, dg.AssetCheckEvaluation) or (
            not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
        )


async def failed_badly(
    view: AssetGraphView,
    severities: Severities,
    check: dg.AssetCheckKey,
    candidates: EntitySubset[Any],
) -> EntitySubset[Any]:
    """Give the part of a check in which it has failed, and more than warns.

    Parameters
    ----------
    view
        Dagster's view of what is there.
    severities
        What is remembered.
    check
        The check.
    candidates
        What is asked about.
    """
    failed: EntitySubset[Any] = await view.compute_subset_with_status(
        check, AssetCheckExecutionResolvedStatus.FAILED, candidates
    )
    if failed.is_empty:
        return failed
    if not failed.is_partitioned:
        return failed if severities.errors(view.instance, check, [None]) else view.get_empty_subset(key=check)
    errors = severities.errors(view.instance, check, failed.expensively_compute_partition_keys())
    return view.compute_intersection_with_partition_keys({key for key in errors if key is not None}, failed)


class BlockingCheckFailedBadly(dg.AutomationCondition[dg.AssetKey]):
    """True where a blocking check of the asset has failed, and more than warns.

    It is asked about assets, not about their checks: there Dagster takes every condition for one that can be written
    down.
    """

    def __init__(self) -> None:
        self._severities = Severities()

    @property
    def name(self) -> str:
        """Say it in the UI's words."""
        return "a blocking check failed, and not only warns"

    async def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult:  # type: ignore[override]
        """Evaluate the candidates.

        Parameters
        ----------
        context
            Gives the asset, the candidates, and the view.
        """
        view, candidates = context.asset_graph_view, context.candidate_subset
        rejected = context.get_empty_subset()
        for check in view.asset_graph.get(context.key).check_keys:
            if not view.asset_graph.get(check).blocking:
                continue
            badly = await failed_badly(view, self._severities, check, view.get_full_subset(key=check))
            if badly.is_empty:
                continue
            if badly.is_partitioned and candidates.is_partitioned:
                keys = set(badly.expensively_compute_partition_keys())
                found = view.compute_intersection_with_partition_keys(keys, candidates)
            else:
                found = candidates
            rejected = rejected.compute_union(found)
        return dg.AutomationResult(context, rejected)
