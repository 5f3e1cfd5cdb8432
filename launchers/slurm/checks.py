"""What a cluster can't do, said before anything is submitted.

Belongs here: comparing what is asked for with what the partitions have, and cutting memory's growth off at what the
largest node has. Doesn't: limits of accounts and QOS, which Slurm alone knows, and says when it refuses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from launchers.slurm.jobs import Request, limit_name
from launchers.slurm.queue import Partition
from resources.errors import Rejected, SiteFault

_PARTITION = "--partition="


def check_requests(requests: Iterable[Request], partitions: Mapping[str, Partition]) -> None:
    """Look for what no node can do.

    Parameters
    ----------
    requests
        What the jobs ask for.
    partitions
        What there is, by name.

    Raises
    ------
    resources.errors.Rejected
        A partition that isn't there, or more memory, CPUs or time than jobs can have there.
    resources.errors.SiteFault
        The partition takes no jobs.
    """
    for request in requests:
        names = partitions_of(request, partitions)
        unknown = sorted(set(names).difference(partitions))
        if unknown:
            raise Rejected(
                f"there is no queue {', '.join(unknown)}", request.label, f"there are {', '.join(sorted(partitions))}"
            )
        usable = [partitions[name] for name in names]
        where = f"queue {', '.join(names)}"
        if usable and not any(partition.is_up for partition in usable):
            raise SiteFault("the queue takes no jobs", where, "see sinfo, or set another queue")
        memory = max((partition.memory_mb for partition in usable), default=0)
        if request.memory_mb > memory:
            raise Rejected(
                f"{request.label} asks for {request.memory_mb} MB, and the largest node has {memory} MB",
                where,
                "lower requestMemory, or set another queue",
            )
        cpus = max((partition.cpus for partition in usable), default=0)
        if request.cpus > cpus:
            raise Rejected(
                f"{request.label} asks for {request.cpus} CPUs, and the largest node has {cpus}",
                where,
                "lower requestCpus, or set another queue",
            )
        limits = [partition.walltime_min for partition in usable]
        longest = max((limit for limit in limits if limit is not None), default=0.0)
        if None not in limits and (request.walltime_min or 0) > longest:
            raise Rejected(
                f"{request.label} asks for {request.walltime_min} minutes, and jobs may take {longest:.0f} there",
                where,
                "lower requestWalltime, or set another queue",
            )


def unknown_limits(requests: Iterable[Request], licences: Collection[str]) -> list[str]:
    """Say of each limit that the cluster has no licence for that it limits nothing.

    Parameters
    ----------
    requests
        What the jobs ask for.
    licences
        Names of those that there are.
    """
    labels: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for request in requests:
        for limit in request.limits:
            labels[limit_name(limit)][request.label] = None
    return [
        f"{', '.join(some)}: the cluster has no licence {name}, so concurrencyLimit limits nothing"
        for name, some in sorted(labels.items())
        if name not in licences
    ]


def partitions_of(request: Request, partitions: Mapping[str, Partition]) -> list[str]:
    """Give the partitions that a request's jobs may run in: those named, the default one, or all where there is none.

    Parameters
    ----------
    request
        What jobs ask for.
    partitions
        What there is, by name.
    """
    for option in request.options:
        if option.startswith(_PARTITION):
            return option.removeprefix(_PARTITION).split(",")
    return [name for name, partition in partitions.items() if partition.is_default] or list(partitions)


def largest_memory(request: Request, partitions: Mapping[str, Partition]) -> int:
    """Give the memory of the largest node that a request's jobs may run on (MB).

    Parameters
    ----------
    request
        What jobs ask for.
    partitions
        What there is, by name.
    """
    known = [partitions[name].memory_mb for name in partitions_of(request, partitions) if name in partitions]
    return max(known, default=0)
