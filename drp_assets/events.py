"""How assets tell Dagster what happened, one way for all: an event a partition, also in a run over a range of them.

Belongs here: writing materialisations and check evaluations from inside a run. Doesn't: what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from launchers.folders import folder_fault, is_folder_fault
from resources.errors import OperatorError, Retriable


def log_materialization(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str | None, metadata: Mapping[str, Any]
) -> None:
    """Record that a partition of an asset exists now.

    Parameters
    ----------
    context
        The run's.
    key
        The asset.
    partition
        Its partition; None where it has none.
    metadata
        Keys stay the same from run to run, so that the UI can plot them.
    """
    context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=dict(metadata)))


def log_check(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    name: str,
    partition: str | None,
    *,
    passed: bool,
    metadata: Mapping[str, Any],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    description: str | None = None,
) -> None:
    """Record what a check found in a partition of an asset.

    Parameters
    ----------
    context
        The run's.
    key, name
        The asset and its check.
    partition
        Its partition; None where it has none.
    passed
        The finding.
    metadata
        As for materialisations.
    severity
        Of a finding that isn't good.
    description
        One line.
    """
    context.log_event(
        dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=name,
            passed=passed,
            metadata=dict(metadata),
            target_materialization_data=_latest_materialization(context, key, partition),
            severity=severity,
            partition=partition,
            description=description,
        )
    )


def recorded_metadata(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str | None
) -> Mapping[str, dg.MetadataValue]:
    """Read what the latest materialisation of a partition says; nothing where there is none.

    Parameters
    ----------
    context
        The run's.
    key
        The asset.
    partition
        Its partition; None where it has none.
    """
    record = _latest_record(context, key, partition)
    materialization = record.asset_materialization if record else None
    return materialization.metadata if materialization else {}


def _latest_record(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str | None
) -> dg.EventLogRecord | None:
    partitions = None if partition is None else [partition]
    found = context.instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=partitions), limit=1)
    return next(iter(found.records), None)


def _latest_materialization(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str | None
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Say what was checked: automation takes a check of an older materialisation for one that hasn't run."""
    record = _latest_record(context, key, partition)
    if record is None:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
    )


@contextmanager
def one_line_failures() -> Iterator[None]:
    """Let an operator's error, or a full disk, end the run with one line, and say whether trying again can help."""
    try:
        yield
    except OperatorError as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, Retriable)) from None
    except OSError as error:
        if not is_folder_fault(error):
            raise
        raise dg.Failure(str(folder_fault(error, "the site's folders")), allow_retries=False) from error


def output_for(check: dg.AssetCheckKey) -> dg.Output[None]:
    """Give what an op has to yield for a check whose evaluations it has logged itself.

    Parameters
    ----------
    check
        One of the op's checks.
    """
    return dg.Output(None, output_name=f"{check.asset_key.to_python_identifier()}_{check.name}")
