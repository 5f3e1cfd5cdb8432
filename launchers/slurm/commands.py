"""Slurm's commands, run: each with a time limit, and each trouble as one line that says who may try again.

Belongs here: starting ``sbatch``, ``squeue``, ``sacct``, ``scontrol``, ``scancel`` and ``sinfo``, and telling a
controller that doesn't answer from one that says no. Doesn't: reading their output (`launchers.slurm.queue`), or
deciding what to ask for. Standard library and our errors only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from launchers.slurm import queue
from launchers.slurm.jobs import Element
from launchers.slurm.queue import Accounted, Partition, Queue
from resources.errors import Rejected, Retriable, SiteFault

_TIMEOUT_S = 60.0
_SILENT = re.compile(
    r"Unable to contact slurm controller|Connection refused|Connection timed out|Socket timed out|Transport endpoint"
    r"|Zero Bytes were transmitted|Message receive failure|Communication connection failure|Resource temporarily"
    r"|temporarily unable to accept|slurm_persist_conn_open|Unable to connect to|Controller is not responding"
    r"|Unexpected message received|authentication (error|credential)",
    re.IGNORECASE,
)
_NOTHING_TO_RELEASE = re.compile(
    r"No error|already (finished|complet)|Invalid job id|Access/permission denied", re.IGNORECASE
)
"""Of elements that are over or gone, and of those that an administrator holds; the queue says which is which."""

_BRACKET_LIMIT = 60_000
"""Characters of one argument, which the kernel limits to 128 KiB."""


def user_name() -> str:
    """Name the user that Slurm takes this process for, whatever its environment calls him."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@dataclass(frozen=True)
class Slurm:
    """The Slurm that a process's environment leads to.

    Parameters
    ----------
    environment
        What the commands run with, and what jobs inherit; this process's own when None.
    """

    environment: Mapping[str, str] | None = None

    def submit(self, options: Sequence[str], script: Sequence[str]) -> int:
        """Submit a script, and return the number of its job or array.

        Parameters
        ----------
        options
            Of ``sbatch``.
        script
            The script's file, and its arguments.

        Raises
        ------
        resources.errors.Retriable
            The controller didn't answer; the job may have been submitted all the same.
        resources.errors.Rejected
            Slurm says no, and why.
        """
        printed = self._run("sbatch", "--parsable", *options, *script)
        return int(printed.strip().split(";")[0])

    def queue(self, user: str) -> Queue:
        """Ask for all of a user's jobs, those that ended a moment ago among them.

        Parameters
        ----------
        user
            Whose.

        Raises
        ------
        resources.errors.Retriable
            The controller doesn't answer.
        """
        options = ["--noheader", "--array", "--states=all", f"--user={user}", f"--Format={queue.QUEUE_FORMAT}"]
        return queue.parse_queue(self._run("squeue", *options))

    def accounts(self, arrays: Iterable[str]) -> Mapping[Element, Accounted]:
        """Ask accounting for arrays or elements; nothing where there is no accounting.

        Parameters
        ----------
        arrays
            Their numbers.

        Raises
        ------
        resources.errors.Retriable
            The accounting doesn't answer.
        """
        wanted = ",".join(arrays)
        if not wanted or not self.has_accounting:
            return {}
        options = ["--noheader", "--parsable2", f"--format={queue.ACCOUNT_FORMAT}", f"--jobs={wanted}"]
        return queue.parse_accounts(self._run("sacct", *options))

    def folder_of(self, job: str) -> str | None:
        """Find the folder that a job was submitted from, in the queue or in accounting."""
        with contextlib.suppress(Rejected):
            lines = self._run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%Z").splitlines()
            if lines:
                return lines[0].strip()
        if not self.has_accounting:
            return None
        options = ["--noheader", "--parsable2", "--allocations", "--format=WorkDir", f"--jobs={job}"]
        lines = self._run("sacct", *options).splitlines()
        return lines[0].strip() if lines else None

    def release(self, elements: Iterable[Element], whole: Collection[int] = ()) -> None:
        """Let parked elements run; those that were let already don't matter.

        Parameters
        ----------
        elements
            Which.
        whole
            Arrays of which all that is parked is meant: Slurm keeps those in one piece, which costs it much less.

        Raises
        ------
        resources.errors.Retriable
            The controller doesn't answer; some may have been let all the same.
        resources.errors.Rejected
            Slurm says no, and why.
        """
        single = _short(element for element in elements if element.array not in whole)
        for name in [*map(str, whole), *single]:
            self._run("scontrol", "release", name, tolerated=_NOTHING_TO_RELEASE)

    def cancel(self, names: Sequence[str]) -> None:
        """Cancel jobs, arrays or elements; those that are over don't matter: ``scancel`` says nothing of them.

        Raises
        ------
        resources.errors.Retriable
            The controller doesn't answer.
        resources.errors.Rejected
            Slurm says no, and why.
        """
        if names:
            self._run("scancel", "--quiet", *names)

    def cancel_elements(self, elements: Iterable[Element]) -> None:
        """Cancel elements."""
        self.cancel(_short(elements))

    def requeue(self, job: str) -> None:
        """Put a job back into the queue."""
        self._run("scontrol", "requeue", job)

    def partitions(self) -> Mapping[str, Partition]:
        """Ask for the partitions, by name."""
        return queue.parse_partitions(self._run("sinfo", "--noheader", f"--format={queue.PARTITION_FORMAT}"))

    def licences(self) -> frozenset[str]:
        """Ask for the names of the licences, of which only so many are given out at once."""
        return queue.parse_licences(self._run("scontrol", "--oneliner", "show", "licenses"))

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """How Slurm is configured."""
        return queue.parse_settings(self._run("scontrol", "show", "config"))

    @property
    def has_accounting(self) -> bool:
        """Whether ``sacct`` has anything to tell."""
        kind = self.settings.get("AccountingStorageType", "")
        return kind not in {"", "(null)"} and not kind.endswith("none")

    @property
    def array_size(self) -> int:
        """Tasks that an array can have."""
        return int(self.settings.get("MaxArraySize", "1001"))

    @property
    def job_limit(self) -> int:
        """Jobs that Slurm can have at a time."""
        return int(self.settings.get("MaxJobCount", "10000"))

    def _run(self, program: str, *arguments: str, tolerated: re.Pattern[str] | None = None) -> str:
        environment = os.environ if self.environment is None else self.environment
        # What Slurm tells a job of itself would be taken for wishes of the jobs that it submits.
        clean = {
            key: value
            for key, value in environment.items()
            if not key.startswith(("SLURM_", "SBATCH_", "SLURMD_", "SQUEUE_", "SACCT_")) or key == "SLURM_CONF"
        }
        try:
            done = subprocess.run(
                [program, *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                env={**clean, "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"},
            )
        except FileNotFoundError as error:
            raise SiteFault(f"{program} is not there", "PATH", "install Slurm's clients where this runs") from error
        except subprocess.TimeoutExpired as error:
            raise Retriable(f"Slurm doesn't answer within {_TIMEOUT_S:.0f} s", program, "try again") from error
        if done.returncode == 0:
            return done.stdout
        if done.returncode < 0:
            # A client that is cut off from the controller in the midst of a word dies of it (SIGPIPE).
            name = signal.Signals(-done.returncode).name
            raise Retriable(f"Slurm doesn't answer: {name} has ended {program}", program, "try again")
        complaint = _complaint(done.stderr) or f"it ended with {done.returncode} and no word"
        if tolerated and done.stderr.strip() and all(map(tolerated.search, done.stderr.strip().splitlines())):
            return done.stdout
        if _SILENT.search(done.stderr):
            raise Retriable(f"Slurm doesn't answer: {complaint}", program, "try again; see scontrol ping")
        raise Rejected(f"Slurm refuses: {complaint}", program, "see what was asked for")


def _short(elements: Iterable[Element]) -> list[str]:
    """Name elements in arguments that are not too long."""
    names = []
    for name in queue.element_lists(elements):
        if len(name) <= _BRACKET_LIMIT:
            names.append(name)
            continue
        array, _, tasks = name.rstrip("]").partition("_[")
        parts = tasks.split(",")
        size = 1 + len(parts) * _BRACKET_LIMIT // (2 * len(tasks))
        names += [f"{array}_[{','.join(parts[n : n + size])}]" for n in range(0, len(parts), size)]
    return names


def _complaint(text: str) -> str:
    """Give what Slurm complains of, without its prefixes, on one line."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))
