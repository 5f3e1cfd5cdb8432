"""What a Dagster run remembers of the submission it has made, so that a later worker finds it again.

Belongs here: writing a handle into the run's event log, and reading it back; the only place that touches Dagster's own
helpers for it (``dagster._core.pipes.reattach``), which are private, and why Dagster is pinned exactly.
Doesn't: finding a submission by its name (`launchers.bps.find`), which comes first and doesn't need Dagster.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.pipes.reattach import (
    PIPES_LAUNCH_HANDLE_METADATA_KEY,
    PipesLaunchHandle,
    find_latest_launch_handle,
    record_external_launch,
    record_external_reattach,
)
from dagster._serdes import deserialize_value

from launchers.bps import Handle

_CLIENT = "bps"
_EXTRA = "handle"

type StepContext = dg.OpExecutionContext | dg.AssetExecutionContext


def record_launch(context: StepContext, handle: Handle) -> None:
    """Write into the run's log that this step has made a submission."""
    record_external_launch(context, client_name=_CLIENT, external_run_id=handle.wms_id, extras={_EXTRA: str(handle)})


def record_reattachment(context: StepContext, handle: Handle) -> None:
    """Write into the run's log that this step has found its submission again."""
    recorded = find_latest_launch_handle(context, client_name=_CLIENT)
    if recorded is None or recorded.extras.get(_EXTRA) != str(handle):
        # Submitted, but the worker died before it could write so.
        record_launch(context, handle)
    else:
        record_external_reattach(context, recorded)


def submissions_of_run(instance: dg.DagsterInstance, run_id: str) -> list[Handle]:
    """Read the submissions that a run has made, each once."""
    handles: dict[str, Handle] = {}
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        if entry.dagster_event is None:
            continue
        value = entry.dagster_event.engine_event_data.metadata.get(PIPES_LAUNCH_HANDLE_METADATA_KEY)
        if isinstance(value, dg.TextMetadataValue) and value.value:
            recorded = deserialize_value(value.value, PipesLaunchHandle)
            if recorded.client_name == _CLIENT:
                handle = Handle.parse(str(recorded.extras[_EXTRA]))
                handles[handle.name] = handle
    return list(handles.values())
