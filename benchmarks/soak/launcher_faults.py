"""What goes wrong in the launchers' soak: when it strikes, what is struck, what a site does then, what must come of it.

Belongs here: one value a fault, and doing one trial of it. Doesn't: what is seen afterwards
(`benchmarks.soak.launcher_evidence`), or telling of it (`benchmarks.soak.launchers`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import dagster as dg

from benchmarks.soak.launcher_evidence import look, running_jobs
from benchmarks.soak.launcher_site import LauncherSite
from benchmarks.soak.launcher_trials import WITHOUT_ONE, Expected, Trial, broken_promises, site_bps
from benchmarks.soak.victims import Stuck
from resources.errors import OperatorError, Retriable
from services.service import Service, ServiceError

SLOW = "sleep 12"
"""Long enough that what strikes in the midst of it does."""

_MEMORY_MB = 600
_POLL_S = 0.25
_WILL_RETRY = "dagster/will_retry"
"""Tag by which Dagster says, a moment after a run has failed, whether it tries it again itself."""


@dataclass(frozen=True, slots=True)
class World:
    """A trial on its site.

    Parameters
    ----------
    site, instance
        Where.
    trial
        What.
    """

    site: LauncherSite
    instance: dg.DagsterInstance
    trial: Trial

    @property
    def runs(self) -> list[dg.DagsterRun]:
        """The trial's runs, the latest first."""
        return self.site.runs(self.instance, self.trial)

    @property
    def has_worker(self) -> bool:
        """Whether somebody works for it; a run that never begins, Dagster itself gives up after a while."""
        runs = self.runs
        return bool(runs) and runs[0].status is dg.DagsterRunStatus.STARTED and bool(self.site.workers(runs))

    @property
    def nodes(self) -> Sequence[str]:
        """Nodes that run its jobs."""
        return sorted(running_jobs(self.trial.request(self.site.folder, site_bps())).values())


@dataclass(frozen=True, slots=True)
class Moment:
    """When a fault strikes: some seconds after something has been seen, drawn anew for each trial.

    Parameters
    ----------
    seen
        What has to be there first, for people.
    is_there
        Whether it is.
    spread_s
        At most so long afterwards.
    """

    seen: str
    is_there: Callable[[World], bool]
    spread_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Parameters
    ----------
    name
        What an operator calls it.
    strike
        Breaks something, and says what; None where the work itself is the trouble.
    moment
        When.
    expected
        What must come of the trial.
    trouble, bps
        Of the trial.
    """

    name: str
    strike: Callable[[World], str] | None
    moment: Moment
    expected: Expected = field(default_factory=Expected)
    trouble: str = SLOW
    bps: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial, done.

    Parameters
    ----------
    fault
        Its name.
    name
        The trial's.
    what
        What exactly was struck, and when.
    seconds
        From the strike (where the work itself is the trouble, from the first job's start) to the end of the run.
    broken
        Promises that were not kept.
    """

    fault: str
    name: str
    what: str
    seconds: float
    broken: tuple[str, ...]


def try_fault(
    site: LauncherSite, instance: dg.DagsterInstance, fault: Fault, name: str, seed: str, patience_s: float
) -> TrialResult:
    """Do one trial of a fault.

    Parameters
    ----------
    site, instance
        Where; whole, with nothing else going on.
    fault
        Which.
    name
        The trial's.
    seed
        Of the moment, and of how long things stay broken.
    patience_s
        How long anything may take that has to happen by itself.
    """
    random = Random(seed)
    world = World(site, instance, Trial(name, fault.trouble, fault.bps))
    what, struck = "nothing was struck", time.monotonic()
    try:
        site.ask(world.trial)
        _wait(lambda: fault.moment.is_there(world), fault.moment.seen, patience_s)
        delay_s, outage_s = random.uniform(0.0, fault.moment.spread_s), random.uniform(2.0, 6.0)
        time.sleep(delay_s)
        what, struck = fault.moment.seen, time.monotonic()
        if fault.strike is not None:
            what = f"{fault.strike(world)}, {delay_s:.1f} s after: {fault.moment.seen}"
            time.sleep(outage_s)
            site.start()
        asked_again = _wait_for_end(world, fault.expected, patience_s)
        seconds = time.monotonic() - struck
        what += "; asked for again" if asked_again else ""
        seen = look(site, instance, world.trial, judged=fault.expected.tasks is not None)
        broken = broken_promises(fault.expected, seen)
    except (Stuck, ServiceError, OperatorError) as error:
        return TrialResult(fault.name, name, what, time.monotonic() - struck, (str(error),))
    return TrialResult(fault.name, name, what, seconds, tuple(broken))


def _wait(is_so: Callable[[], bool], what: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not _is_known(is_so):
        if time.monotonic() > deadline:
            raise Stuck(f"not within {patience_s:g} s: {what}")
        time.sleep(_POLL_S)


def _is_known(is_so: Callable[[], bool]) -> bool:
    try:
        return is_so()
    except Retriable:  # whoever knows is busy
        return False


def _wait_for_end(world: World, expected: Expected, patience_s: float) -> bool:
    """Wait until the latest run is over and no other comes after it; ask once more where that is somebody's to do.

    Returns
    -------
    asked_again
        Whether that was needed.
    """
    asked_again = False
    while True:
        _wait(lambda: bool(runs := world.runs) and runs[0].is_finished, "its run is over", patience_s)
        runs = world.runs
        if runs[0].status.value == expected.run:
            return asked_again
        known = len(runs)
        if runs[0].status is dg.DagsterRunStatus.FAILURE and _is_tried_again(world, runs[0].run_id, patience_s):
            _wait(lambda before=known: len(world.runs) > before, "Dagster tries it again", patience_s)  # type: ignore[misc]
            continue
        if asked_again or not expected.asked_again:
            return asked_again
        asked_again = True
        world.site.ask(world.trial, times=2)
        _wait(lambda before=known: len(world.runs) > before, "it is asked for again", patience_s)  # type: ignore[misc]


def _is_tried_again(world: World, failed: str, patience_s: float) -> bool:
    def said() -> str | None:
        run = world.instance.get_run_by_id(failed)
        return run.tags.get(_WILL_RETRY) if run else None

    _wait(lambda: said() is not None, "Dagster says whether it tries it again", patience_s)
    return said() == "true"


def _kill(server: Callable[[LauncherSite], Service]) -> Callable[[World], str]:
    def strike(world: World) -> str:
        service = server(world.site)
        pid = service.pid
        service.kill()
        return f"kill -9 {pid}"

    return strike


def _kill_worker(world: World) -> str:
    for worker in world.site.workers(world.runs):
        if worker.send(signal.SIGKILL):
            return f"kill -9 {worker.pid}"
    raise Stuck("the run had no worker any more when it was to be struck")


def _kill_node(world: World) -> str:
    busy = world.nodes
    if not busy:
        raise Stuck("no job ran any more when its node was to be struck")
    node = next(node for node in world.site.slurm.nodes if node.node == busy[0])
    pid, jobs = node.pid, list(node.processes())
    node.kill()
    for process in jobs:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return f"kill -9 {pid} and all {len(jobs)} processes of its jobs"


def _cancel(world: World) -> str:
    world.instance.run_launcher.terminate(world.runs[0].run_id)
    return f"run {world.runs[0].run_id[:8]} cancelled"


def _terminate_everything(world: World) -> str:
    return world.site.terminate_everything()


_ASKED = Moment("it is asked for", lambda world: True, 20.0)
_WORKS = Moment("a worker has begun", lambda world: world.has_worker, 20.0)
_RUNS = Moment("a job runs", lambda world: bool(world.nodes), 5.0)
_STARTS = Moment("a job runs", lambda world: bool(world.nodes), 0.0)

FAULTS: tuple[Fault, ...] = (
    Fault("run worker killed", _kill_worker, _WORKS),
    Fault("code server killed", _kill(lambda site: site.code_server), _ASKED),
    Fault("daemon killed", _kill(lambda site: site.daemon), _ASKED),
    Fault("slurmctld killed", _kill(lambda site: site.slurm.controller), _WORKS),
    Fault("node dies", _kill_node, _RUNS),
    Fault("PostgreSQL killed", _kill(lambda site: site.postgresql), _WORKS),
    Fault(
        "3 times the memory",
        None,
        _STARTS,
        Expected(out_of_memory=2),
        f"memory {3 * _MEMORY_MB}",
        {"requestMemory": _MEMORY_MB, "memoryMultiplier": 2.0},
    ),
    Fault(
        "a quantum hangs",
        None,
        _STARTS,
        Expected("FAILURE", "FAILED", WITHOUT_ONE),
        "sleep 3600",
        {"pipetask": {"double": {"requestWalltime": 1}}, "numberOfRetries": 0},
    ),
    Fault("run cancelled", _cancel, _RUNS, Expected("CANCELED", "DELETED", tasks=None), "sleep 3600"),
    Fault("SIGTERM of everything", _terminate_everything, _WORKS, Expected(asked_again=True)),
)
"""Each as often as the soak says."""
