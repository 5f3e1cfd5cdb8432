"""Dagster's instance for the ticks of sensors: one a process, where Dagster makes one a tick.

Making an instance reads every migration of its storages anew, which takes longer than most ticks.

Belongs here: remembering it. Doesn't: what a sensor does with it.
"""

import dagster as dg
from dagster._core.instance.ref import InstanceRef

_made: list[tuple[InstanceRef, dg.DagsterInstance]] = []


def remember_instance(context: dg.SensorEvaluationContext) -> None:
    """Give a tick the instance of the ticks before it.

    Parameters
    ----------
    context
        The tick's; one that has its instance already keeps it.
    """
    if context._instance is None and context.instance_ref is not None:
        context._instance = _instance_of(context.instance_ref)


def _instance_of(reference: InstanceRef) -> dg.DagsterInstance:
    for known, instance in _made:
        if known == reference:
            return instance
    instance = dg.DagsterInstance.from_ref(reference)
    _made.append((reference, instance))
    return instance
