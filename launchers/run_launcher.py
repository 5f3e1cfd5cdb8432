"""The run launcher that survives its workers, for sites without Kubernetes.

Belongs here: starting a run's worker in a session of its own, telling whether it lives, giving a run whose worker died
a new one, ending it when asked. With Dagster's ``run_monitoring`` a run goes on after ``kill -9`` of its worker, and
finds the submission that the dead worker had made (`launchers.step_run`).
Doesn't: anything about submissions but cancelling those that nobody watches when their run is cancelled.

Whoever asks may be on another machine than the worker. Then nothing is known of it, and it counts as living: it gets no
successor beside it, and ends by itself when its run is cancelled (`launchers.wanted`).

In ``dagster.yaml``::

    run_launcher:
      module: launchers.run_launcher
      class: ReattachingRunLauncher
      config: {state_folder: /var/lib/drp, warm: true}
    run_monitoring:
      enabled: true
      max_resume_run_attempts: 3
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData

from launchers import warm
from launchers.processes import ProcessIdentity, start_detached

WORKER_TAG = "drp/worker"


class ReattachingRunLauncher(RunLauncher, ConfigurableClass):
    """Starts each run in a process of its own on this machine, which neither daemon nor code server takes down with it.

    Parameters
    ----------
    state_folder
        Where the workers' logs, and the warm process, are.
    warm
        Whether workers are forked from a process that has the imports done (`launchers.warm`).
    """

    def __init__(self, state_folder: str, warm: bool = True, inst_data: ConfigurableClassData | None = None) -> None:
        self._state = Path(state_folder).absolute()
        self._is_warm = warm
        self._inst_data = inst_data
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What the launcher was configured with."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of its configuration."""
        return {
            "state_folder": dg.Field(dg.StringSource),
            "warm": dg.Field(dg.BoolSource, is_required=False, default_value=True),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make a launcher from ``dagster.yaml``."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's first worker."""
        self._start(context, ExecuteRunArgs)

    @property
    def supports_resume_run(self) -> bool:
        """A run may get another worker."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start another worker for a run that has lost its own."""
        self._start(context, ResumeRunArgs)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """The worker's process can be looked at."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether a run's worker lives; one that has finished its run is not missed."""
        host, worker = self._worker(run.run_id)
        if worker is None:
            # To Dagster, UNKNOWN is as good as dead.
            return CheckRunHealthResult(WorkerStatus.RUNNING, _unseen(host))
        if worker.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker))
        now = self._instance.get_run_by_id(run.run_id)
        if now is not None and now.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS, run_worker_id=str(worker))
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {worker.pid} is gone", run_worker_id=str(worker))

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return where the worker is, where it isn't here, and the end of its log."""
        host, worker = self._worker(run.run_id)
        where = [_unseen(host)] if worker is None else []
        try:
            lines = self._log(run.run_id).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "\n".join(where) or None
        return "\n".join([*where, f"End of {self._log(run.run_id)}:", *lines[-20:]])

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: its worker cancels what it has submitted; what nobody watches any more is cancelled here."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        host, worker = self._worker(run_id)
        if worker is not None and worker.send(signal.SIGINT):
            return True
        said = self._cancel_unwatched(run_id)
        if worker is not None:
            self._instance.report_run_canceled(run, message="\n".join(["The run's worker was gone.", *said]))
        else:
            self._instance.report_engine_event("\n".join([f"{_unseen(host)}; it ends by itself", *said]), run)
        return True

    def _start(
        self, context: LaunchRunContext | ResumeRunContext, arguments: type[ExecuteRunArgs] | type[ResumeRunArgs]
    ) -> None:
        run = context.dagster_run
        origin = context.job_code_origin
        if origin is None:
            raise dg.DagsterInvariantViolationError(f"run {run.run_id} doesn't say where its code is")
        command = arguments(
            job_origin=origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        ).get_command_args()
        if command[0] == "dagster":
            # The environment's executables need not be on the PATH of who starts the daemon.
            command = [origin.executable_path, "-m", *command]
        worker = self._start_process(command, self._log(run.run_id))
        tag = f"{socket.gethostname()}/{worker}"
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: tag})
        self._instance.report_engine_event(f"Started worker {tag}; its output: {self._log(run.run_id)}", run)

    def _start_process(self, command: Sequence[str], log: Path) -> ProcessIdentity:
        environment = dict(os.environ)
        # Another environment's Python has other packages: no fork of ours would do.
        if self._is_warm and Path(command[0]) == Path(sys.executable):
            environment[warm.STATE_VARIABLE] = str(self._state)
            warm.start(self._state)
            worker = warm.run_detached(self._state, command, log, environment=environment, directory=Path.cwd())
            if worker is not None:
                return worker
        return start_detached(command, log, environment=environment)

    def _worker(self, run_id: str) -> tuple[str, ProcessIdentity | None]:
        """Give the machine that a run's worker is on, and its process where that is this one."""
        run = self._instance.get_run_by_id(run_id)
        host, _, identity = (run.tags.get(WORKER_TAG, "") if run else "").partition("/")
        return host, ProcessIdentity.parse(identity) if host == socket.gethostname() else None

    def _log(self, run_id: str) -> Path:
        return self._state / "runs" / f"{run_id}.log"

    def _cancel_unwatched(self, run_id: str) -> list[str]:
        # The middleware takes seconds to import, and a daemon seldom needs it.
        from launchers import attempts, cancelling, reattach

        recorded = [Path(each.submit_path).parent for each in reattach.submissions_of_run(self._instance, run_id)]
        # A worker may die between submitting and saying so.
        claimed = attempts.folders_of_run(self._state / "submissions", run_id)
        return [cancelling.cancel_unwatched(folder, run_id) for folder in dict.fromkeys([*recorded, *claimed])]


def _unseen(host: str) -> str:
    return f"its worker is on {host or 'a machine that is not known'} and can't be seen from {socket.gethostname()}"
