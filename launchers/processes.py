"""Processes of this machine, named so that a number used twice is not mistaken for the same process.

Belongs here: telling whether a process or a group of processes still lives, signalling it, starting one that outlives
its starter, and a lock that ends with its holder. Standard library only, because the processes that need it must start
at once.
Doesn't: anything about jobs, runs or Dagster.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import IO, Self


def _start_ticks(pid: int) -> str | None:
    """Start of a living process, in the kernel's own words; None for one that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name may hold blanks and brackets; everything after its last bracket is plain.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process by number and time of start: after a reboot or a reuse of the number it is another one."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Identify a living process; None when there is none."""
        started = _start_ticks(pid)
        return None if started is None else cls(pid, f"{_boot_id()}:{started}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` wrote."""
        pid, _, started = text.partition("@")
        return cls(int(pid), started)

    def __str__(self) -> str:
        return f"{self.pid}@{self.started}"

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self

    def send(self, number: Signals) -> bool:
        """Signal the process; False when it is gone."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def send_to_group(self, number: Signals) -> bool:
        """Signal the group that this process led; False when nobody is left in it."""
        replaced = ProcessIdentity.of(self.pid)
        if replaced is not None and replaced != self:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""


def start_detached(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
) -> ProcessIdentity:
    """Start a process in a session of its own, which outlives this one and is nobody's zombie.

    Parameters
    ----------
    command
        Program and arguments.
    log
        File that its output is appended to.
    environment
        Its whole environment; this process's own when None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # The shell in between ends at once, which makes the process a child of init.
    middle = subprocess.run(
        ["/bin/sh", "-c", 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!', "start", str(log), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=None if environment is None else dict(environment),
        check=True,
    )
    pid = int(middle.stdout)
    return ProcessIdentity.of(pid) or ProcessIdentity(pid, "gone")


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = 0.0) -> Iterator[IO[bytes] | None]:
    """Hold a lock that the kernel releases when its holder dies; None when somebody else has it after ``wait_s``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("ab") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield None
                    return
                time.sleep(0.05)
            else:
                yield handle
                return
