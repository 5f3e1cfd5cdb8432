"""Automation that asks for a range of partitions in one run, where Dagster's own asks for a run each.

Belongs here: merging run requests, and the sensor that does so. Doesn't: deciding which partitions run
(`drp_assets.automation`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._record import copy

from sensors.instances import remember_instance


def group_requests(
    requests: Sequence[dg.RunRequest], order_of: Callable[[dg.AssetKey], Sequence[str]]
) -> list[dg.RunRequest]:
    """Merge requests for neighbouring partitions of the same assets.

    Parameters
    ----------
    requests
        One a partition, or of assets without partitions, which stay as they are.
    order_of
        Gives all partitions of an asset, in their order.
    """
    grouped: list[dg.RunRequest] = []
    by_assets: Mapping[frozenset[dg.AssetKey], dict[str, dg.RunRequest]] = defaultdict(dict)
    for request in requests:
        if request.partition_key is None or not request.asset_selection:
            grouped.append(request)
        else:
            by_assets[frozenset(request.asset_selection)][request.partition_key] = request
    for keys, wanted in by_assets.items():
        for first, last in _ranges(order_of(min(keys)), wanted.keys()):
            request = wanted[first]
            if first == last:
                grouped.append(request)
                continue
            tags = {key: value for key, value in request.tags.items() if key != PARTITION_NAME_TAG}
            tags |= {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
            grouped.append(request.with_replaced_attrs(partition_key=None, tags=tags))
    return grouped


def _ranges(order: Sequence[str], wanted: Any) -> Iterator[tuple[str, str]]:
    first = last = None
    for key in order:
        if key in wanted:
            first, last = first or key, key
        elif first is not None and last is not None:
            yield first, last
            first = last = None
    if first is not None and last is not None:
        yield first, last


_LOOK_ANYWAY_S = 60.0
"""Not everything that changes is a run: partitions are added, and events are reported from outside."""


_LATEST_BACKFILLS = 5


def _last_change(instance: dg.DagsterInstance) -> tuple[str, ...]:
    """Name the latest change of any run's or backfill's state: what makes partitions and checks is a run."""
    records = instance.get_run_records(limit=1, order_by="update_timestamp", ascending=False)
    runs = [f"{r.dagster_run.run_id} {r.dagster_run.status} {r.update_timestamp}" for r in records]
    # While a backfill is open, what it makes counts as being made, also when its runs have ended.
    backfills = [f"{b.backfill_id} {b.status}" for b in instance.get_backfills(limit=_LATEST_BACKFILLS)]
    return (*runs, *backfills)


class GroupedAutomationSensor(dg.AutomationConditionSensorDefinition):
    """An automation sensor whose runs cover ranges of partitions, and which looks only when something has happened."""

    _looked_at: tuple[str, ...] | None = None
    _looked_s: float = 0.0

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """Evaluate the conditions, and merge what they ask for.

        Parameters
        ----------
        context
            The tick's.
        """
        remember_instance(context)
        state = _last_change(context.instance)
        if state == self._looked_at and time.monotonic() - self._looked_s < _LOOK_ANYWAY_S:
            return SensorExecutionData(skip_message="no run or backfill has changed", cursor=context.cursor)
        data = super().evaluate_tick(context)
        # What was asked for now changes the runs, and has to be seen to have been asked for at the next look.
        self._looked_at = None if data.run_requests else state
        self._looked_s = time.monotonic()
        repository = context.repository_def
        if not data.run_requests or repository is None:
            return data

        def order_of(key: dg.AssetKey) -> Sequence[str]:
            partitions = repository.asset_graph.get(key).partitions_def
            return partitions.get_partition_keys(dynamic_partitions_store=context.instance) if partitions else ()

        return copy(data, run_requests=group_requests(data.run_requests, order_of))

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> GroupedAutomationSensor:
        """Give a copy of the same kind.

        Parameters
        ----------
        jobs
            Not used by automation.
        metadata
            In place of its own.
        """
        return GroupedAutomationSensor(
            self.name,
            target=self.asset_selection,
            use_user_code_server=True,
            emit_backfills=False,
            minimum_interval_seconds=self.minimum_interval_seconds,
            default_status=self.default_status,
            description=self.description,
            metadata=metadata if metadata is not None else self.metadata,
        )
