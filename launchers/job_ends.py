"""How the jobs of failed quanta ended, where their batch system tells: node, log, memory, and what ended them.

Belongs here: what a WMS service tells of such a job, asking for it, and finding a quantum's job by the command that it
runs. A quantum that was killed leaves nothing behind that could say so, and none says on which node it was.
Doesn't: what follows for a quantum (`launchers.judging`). Standard library only.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resources.errors import OperatorError

if TYPE_CHECKING:
    from launchers.bps import Handle

_QUANTUM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

OUT_OF_TIME = "out of time"
OUT_OF_MEMORY = "out of memory"
LOST_WITH_NODE = "lost with"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended that did not succeed.

    Parameters
    ----------
    ending
        What ended it, such as `OUT_OF_TIME`; empty where it ended by itself, or nobody knows.
    node
        Where it ran; empty where it isn't known.
    memory_mb
        The most memory that it had; 0 where it isn't known.
    log
        URL of its log; empty where there is none.
    """

    ending: str = ""
    node: str = ""
    memory_mb: float = 0.0
    log: str = ""


def ends_of(handle: Handle, quanta: Collection[uuid.UUID]) -> Mapping[uuid.UUID, JobEnd]:
    """Ask a submission's service how the jobs ended that some quanta were in; those that it can't tell are left out.

    Parameters
    ----------
    handle
        The submission. Its service may have a method ``job_ends(wms_id, quanta)``, which other plugins than ours don't.
    quanta
        Their identifiers in the graph.
    """
    tell = getattr(handle.service(), "job_ends", None)
    if tell is None or not quanta:
        return {}
    try:
        ends: Mapping[uuid.UUID, JobEnd] = tell(handle.wms_id, quanta)
    except (OperatorError, RuntimeError, OSError):  # quanta are judged from provenance, whatever the service does
        return {}
    return ends


def by_quantum(quanta: Collection[uuid.UUID], jobs: Iterable[tuple[Path, JobEnd]]) -> dict[uuid.UUID, JobEnd]:
    """Find the quanta's jobs.

    Parameters
    ----------
    quanta
        Those wanted.
    jobs
        The file with each job's command, which names its quanta, and how the job ended.
    """
    wanted = set(quanta)
    found: dict[uuid.UUID, JobEnd] = {}
    for script, end in jobs:
        named = {uuid.UUID(text) for text in _QUANTUM.findall(script.read_text(encoding="utf-8"))}
        found |= dict.fromkeys(named & wanted, end)
    return found


def log_url(log: Path) -> str:
    """Give a log's URL; empty where there is no such file.

    Parameters
    ----------
    log
        Its path.
    """
    return log.absolute().as_uri() if log.exists() else ""
