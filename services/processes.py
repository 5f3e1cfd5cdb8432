"""Processes as the kernel tells of them: which one a pid names, what it started, how much memory it holds.

Belongs here: reading ``/proc``. Doesn't: starting or ending anything (`services.service`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

_PROPORTIONAL = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: with the pid it names a process for good. None if it has ended.

    A child that ended is reaped on the way, so that it doesn't look alive.
    """
    try:
        state, *fields = _stat(pid)
    except OSError:
        return None
    if state != "Z":
        return fields[18]
    with contextlib.suppress(ChildProcessError):  # somebody else's child
        os.waitpid(pid, 0)
    return None


def descendants(pid: int) -> Sequence[int]:
    """Processes that a process started, and those that they started, whatever group they are in."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(process.name)] = int(_stat(int(process.name))[1])
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants; what several share is counted once."""
    total = 0
    for process in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            shares = _PROPORTIONAL.search(Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii"))
            total += int(shares[1]) * 1024 if shares else 0
    return total


def _stat(pid: int) -> list[str]:
    """Fields of a process's ``stat`` after its name: state, parent and so on."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()
