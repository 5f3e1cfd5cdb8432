"""The process that runs a workflow's jobs: ``python -m launchers.local.driver <submit folder>``.

Belongs here: starting jobs as the plan allows, waiting for them, adopting those of a driver that died, ending them when
asked. Every state is written before the process starts and after it ends, so that a driver may be killed at any moment.
Doesn't: deciding what runs next (`launchers.local.jobs`), or anything that takes long to import.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launchers.local.jobs import Job, JobState, Plan
from launchers.local.store import JobStore
from launchers.processes import ProcessIdentity, exclusive

POLL_S = 0.5
GRACE_S = 5.0
KILLED = 128 + signal.SIGKILL

LOCK_FILE = "driver.lock"
ATTEMPT_VARIABLE = "DRP_JOB_ATTEMPT"
"""Tells a job how often it was tried before."""
NOT_STARTED = "not started"
"""What a job's exit file says when its driver died before it could let the job begin."""


def job_script(submit_path: Path, name: str) -> Path:
    """The shell script that a job consists of."""
    return submit_path / "jobs" / f"{file_name(name)}.sh"


def job_log(submit_path: Path, name: str, attempt: int) -> Path:
    """Where an attempt's output goes."""
    return submit_path / "logs" / f"{file_name(name)}.{attempt}.log"


def file_name(job_name: str) -> str:
    """A job's name as part of a file's."""
    return job_name.replace("/", "_")


class Driver:
    """Runs one workflow to its end, or until it is told to stop."""

    def __init__(self, submit_path: Path) -> None:
        self._path = submit_path
        self._store = JobStore(submit_path)
        self._plan = Plan(self._store.read_jobs())
        facts = self._store.read_facts()
        self._cpus: int = facts["cpus"]
        self._memory_mb: int | None = facts["memory_mb"]
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._processes: dict[str, ProcessIdentity] = {}
        self._deadlines: dict[str, float] = {}
        self._killed: set[str] = set()

    def run(self) -> None:
        """Run the workflow."""
        me = ProcessIdentity.of(os.getpid())
        self._store.write_facts(driver=str(me), driver_started_at=time.time())
        with _woken_by(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT) as wake:
            self._store.write_jobs(self._plan.settle())
            self._adopt()
            while not self._plan.is_over:
                if self._store.read_facts().get("cancel_requested"):
                    self._cancel()
                    break
                self._start()
                if self._plan.is_over:
                    break
                select.select([wake], [], [], POLL_S)
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                self._collect()
        self._store.write_facts(ended_at=time.time())

    def _start(self) -> None:
        for job in self._plan.startable(self._cpus, self._memory_mb):
            self._store.write_jobs(self._plan.started(job.name))
            attempt = job.attempt + 1
            log = job_log(self._path, job.name, attempt)
            log.parent.mkdir(exist_ok=True)
            exit_file = self._exit_file(job, attempt)
            exit_file.unlink(missing_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    ["/bin/bash", job_script(self._path, job.name), str(exit_file)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=os.environ | {ATTEMPT_VARIABLE: str(attempt - 1)},
                )
            identity = ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, "gone")
            self._store.write_process(job.name, identity)
            # Only now that it can be found again may it begin.
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"go\n")
                process.stdin.close()
            self._children[job.name], self._processes[job.name] = process, identity
            self._limit(job, time.time())

    def _adopt(self) -> None:
        for name, running in self._store.read_running().items():
            if running.process is None or self._said(self._plan.jobs[name]) == NOT_STARTED:
                # A job begins when its process has been written down, not before.
                self._store.write_jobs(self._plan.not_started(name))
                continue
            self._processes[name] = running.process
            self._limit(self._plan.jobs[name], running.started_at)

    def _limit(self, job: Job, started_at: float) -> None:
        if job.walltime_s is not None:
            self._deadlines[job.name] = started_at + job.walltime_s

    def _collect(self) -> None:
        ended: list[tuple[int, str]] = []
        for name, identity in list(self._processes.items()):
            code = self._exit_code(name, identity)
            if code is not None:
                ended.append((code, name))
            elif time.time() > self._deadlines.get(name, float("inf")) and name not in self._killed:
                self._killed.add(name)
                self._end_groups({name: identity})
        # What ended well has ended well, also where another one aborts the workflow.
        for code, name in sorted(ended):
            if name in self._processes:
                self._note_end(name, code)

    def _note_end(self, name: str, code: int) -> None:
        if code >= 128:
            # Nothing of the attempt may write on while the next one runs.
            self._processes[name].send_to_group(signal.SIGKILL)
        began = self._said(self._plan.jobs[name]) != NOT_STARTED
        changed = self._plan.ended(name, code) if began else self._plan.not_started(name)
        given_up = {
            job.name: self._processes[job.name]
            for job in changed
            if job.state is JobState.DELETED and job.name in self._processes
        }
        # Their processes go before it is written down, lest a driver that dies here leaves some that nobody knows.
        self._end_groups(given_up)
        self._store.write_jobs(changed)
        self._forget(name, *given_up)

    def _forget(self, *names: str) -> None:
        for name in names:
            del self._processes[name]
            self._children.pop(name, None)
            self._deadlines.pop(name, None)
            self._killed.discard(name)

    def _exit_code(self, name: str, identity: ProcessIdentity) -> int | None:
        child = self._children.get(name)
        if child is not None:
            status = child.poll()
            return 128 - status if status is not None and status < 0 else status
        if identity.is_alive:
            return None
        said = self._said(self._plan.jobs[name])
        return int(said) if said.isdecimal() else KILLED

    def _said(self, job: Job) -> str:
        """Return what a job has left in its exit file."""
        try:
            return self._exit_file(job, job.attempt).read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def _exit_file(self, job: Job, attempt: int) -> Path:
        return self._path / "jobs" / f"{file_name(job.name)}.{attempt}.exit"

    def _cancel(self) -> None:
        self._end_groups(self._processes)
        self._store.write_jobs(self._plan.cancel())

    def _end_groups(self, processes: dict[str, ProcessIdentity]) -> None:
        end_groups(list(processes.values()))
        for child in self._children.values():
            child.poll()


def end_groups(leaders: list[ProcessIdentity]) -> None:
    """End groups of processes: politely first, then not."""
    for leader in leaders:
        leader.send_to_group(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(leader.is_alive for leader in leaders):
        time.sleep(0.05)
    for leader in leaders:
        leader.send_to_group(signal.SIGKILL)


@contextlib.contextmanager
def _woken_by(*numbers: signal.Signals) -> Iterator[int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


def main() -> None:
    """Run the workflow in the folder named on the command line, unless another driver does."""
    submit_path = Path(sys.argv[1]).absolute()
    with exclusive(submit_path / LOCK_FILE) as lock:
        if lock is None:
            return
        Driver(submit_path).run()


if __name__ == "__main__":
    main()
