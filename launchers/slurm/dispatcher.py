"""The process that makes a user's workflows go on: ``python -m launchers.slurm.dispatcher <submit folder>``.

It is a small job in Slurm. Of those that ask for the same one runs at a time, and conducts all workflows whose own
dispatchers are in the queue and that nobody else conducts; when its own workflow is over it goes on as long as there is
another.

Belongs here: when to look and when to ask Slurm, finding the other workflows, and going back into the queue before the
time limit. Doesn't: what follows from what was seen (`launchers.slurm.conductor`), or anything that takes long to
import.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from launchers.slurm.commands import Slurm, user_name
from launchers.slurm.conductor import Conductor
from launchers.slurm.jobs import Request
from launchers.slurm.queue import Queue, Queued
from launchers.slurm.store import JobStore, Unreadable
from resources.errors import OperatorError

JOB_NAME = "bps-dispatcher-1"
"""Of every dispatcher's job; the number is that of the records' form, so that none meets records that it can't read.

What the job asks for follows as a digest: one that can't start (its queue is down) keeps only its like from starting.
"""

COMMENT = "bps.dispatcher"
NOTICE_S = 240
"""How long before its time limit a dispatcher is told: each answer that a silent Slurm doesn't give takes a minute."""

REST_S = 30.0
"""How long a workflow is left alone whose folder is full, or can't be read."""

_AGAIN_S = 5.0
"""Pause between two tries to go back into the queue."""

_LOOK_S = 0.25
_IDLE_S = 1.0
_IN_TURN = frozenset({"", "None", "Priority", "Resources", "BeginTime"})
"""Slurm's reasons for which jobs wait that will begin by themselves."""

_HURRY = 10.0
"""How much more often than usual Slurm is asked when something has to be explained."""


def dispatcher_options(submit_path: Path, asked: Request) -> list[str]:
    """Give the options of ``sbatch`` for a workflow's dispatcher.

    Parameters
    ----------
    submit_path
        The workflow's folder.
    asked
        What was asked for in the configuration.
    """
    wishes = [f"--mem={asked.memory_mb}M", *asked.options]
    if asked.walltime_min:
        wishes.append(f"--time={asked.walltime_min}")
    digest = hashlib.blake2s("\0".join(sorted(wishes)).encode(), digest_size=4).hexdigest()
    return [
        f"--job-name={JOB_NAME}-{digest}",
        f"--comment={COMMENT}",
        f"--chdir={submit_path}",
        f"--output={submit_path / 'dispatcher.log'}",
        "--open-mode=append",
        "--dependency=singleton",
        "--requeue",
        f"--signal=B:USR1@{NOTICE_S}",
        "--ntasks=1",
        "--cpus-per-task=1",
        *wishes,
    ]


def dispatchers(queue: Queue) -> dict[str, Queued]:
    """Give the dispatchers that run or will, by their workflows' folders."""
    return {queued.folder: queued for queued in _dispatchers(queue) if not queued.could_not_start}


def waiting_dispatchers(queue: Queue, folder: str) -> list[Queued]:
    """Give a folder's dispatchers that have not begun, those among them that can't and wait for a person."""
    return [queued for queued in _dispatchers(queue) if queued.state == "PENDING" and queued.folder == folder]


def kept_waiting(queue: Queue) -> list[Queued]:
    """Give the dispatchers that wait for more than their turn; none where one runs or is about to, and conducts all."""
    first = [queued for queued in _dispatchers(queue) if queued.reason != "Dependency"]
    return [] if any(queued.state != "PENDING" or queued.reason in _IN_TURN for queued in first) else first


class Dispatcher:
    """Conducts workflows until there are none left, or it is told to go."""

    def __init__(self, own: Path, slurm: Slurm | None = None) -> None:
        self._own = own
        self._slurm = slurm or Slurm()
        self._locks: dict[str, contextlib.ExitStack] = {}
        self._conductors: dict[str, Conductor] = {}
        self._queue = Queue()
        self._rests_until: dict[str, float] = {}
        self._asked_at = float("-inf")
        self._idle_s = _IDLE_S
        self._told: signal.Signals | None = None

    def run(self) -> None:
        """Conduct."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._be_told)
        while self._told is None and self._has_work:
            self.turn()
            time.sleep(_LOOK_S if self._conductors else _IDLE_S)
        for folder in list(self._conductors):
            self._leave(folder)
        while self._told is signal.SIGUSR1:
            try:
                self._slurm.requeue(os.environ["SLURM_JOB_ID"])
                break
            except OperatorError as error:
                _say(f"it cannot go back into the queue: {error}")
                time.sleep(_AGAIN_S)

    def turn(self) -> None:
        """Look at every workflow once; one that can't be looked at halts no other."""
        if self._is_time_to_ask:
            self._ask()
        for folder, conductor in list(self._conductors.items()):
            if self._told is not None:
                return
            with self._bearing(folder):
                conductor.look()
                conductor.act()
                if conductor.is_over:
                    self._leave(folder)
                    self._call_off(folder)

    @property
    def _has_work(self) -> bool:
        return bool(self._conductors) or not _is_over(self._own)

    @property
    def _is_time_to_ask(self) -> bool:
        conductors = self._conductors.values()
        pace_s = min((conductor.poll_s for conductor in conductors), default=self._idle_s)
        if any(conductor.wants_queue for conductor in conductors):
            pace_s /= _HURRY
        return time.monotonic() - self._asked_at >= pace_s

    def _ask(self) -> None:
        try:
            self._queue = self._slurm.queue(user_name())
        except OperatorError as error:
            _say(str(error))
            return
        finally:
            self._asked_at = time.monotonic()
        for folder in {str(self._own), *dispatchers(self._queue)}:
            with self._bearing(folder):
                self._take(folder)
        for folder, conductor in list(self._conductors.items()):
            with self._bearing(folder):
                conductor.look()
                conductor.reconcile(self._queue)
        # One whose workflow another conducts is there only for when that one is gone.
        self._idle_s = _IDLE_S if self._conductors else min(2 * self._idle_s, REST_S)

    @contextlib.contextmanager
    def _bearing(self, folder: str) -> Iterator[None]:
        """Go on without a workflow that can't be conducted now, say so, and come back to it after a while."""
        try:
            yield
        except (OSError, OperatorError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _say(f"{folder}: {why}; others go on, and this one is tried again in {REST_S:.0f} s")
            self._rests_until[folder] = time.monotonic() + REST_S
            self._leave(folder)

    def _take(self, folder: str) -> None:
        """Conduct a workflow, unless somebody else does something with it, or it is over, or is to be left alone."""
        store = JobStore(Path(folder))
        rests = time.monotonic() < self._rests_until.get(folder, 0.0)
        if folder in self._conductors or rests or not store.exists:
            return
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(store.locked()):
                return
            conductor = Conductor(store)
            if conductor.is_over:
                return
            self._conductors[folder] = conductor
            self._locks[folder] = stack.pop_all()

    def _leave(self, folder: str) -> None:
        if self._conductors.pop(folder, None) is not None:
            self._locks.pop(folder).close()

    def _call_off(self, folder: str) -> None:
        """Cancel what waits to conduct a workflow that is over, and has nothing left to come for."""
        with contextlib.suppress(OperatorError):
            self._slurm.cancel([str(queued.job) for queued in waiting_dispatchers(self._queue, folder)])

    def _be_told(self, number: int, frame: FrameType | None) -> None:
        self._told = signal.Signals(number)


def _dispatchers(queue: Queue) -> Iterator[Queued]:
    for queued in queue.elements.values():
        # One that Slurm is clearing away conducts nothing any more.
        if queued.comment == COMMENT and queued.alive is not None and queued.name.startswith(f"{JOB_NAME}-"):
            yield queued


def _is_over(submit_path: Path) -> bool:
    store = JobStore(submit_path)
    try:
        return not store.exists or bool(store.read()[1].get("ended_at"))
    except Unreadable as error:
        _say(str(error))
        return True
    except OSError:
        return False


def _say(line: str) -> None:
    # The log is in a submit folder too, which may be the very one that is full.
    with contextlib.suppress(OSError):
        print(line, flush=True)


def main() -> None:
    """Conduct the workflow in the folder named on the command line, and the others."""
    Dispatcher(Path(sys.argv[1])).run()


if __name__ == "__main__":
    main()
