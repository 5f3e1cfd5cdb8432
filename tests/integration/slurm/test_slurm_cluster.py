"""The Slurm of `services.slurm`: that it is a real one, down to its memory limits, and leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from services.slurm import ClusterShape, Slurm

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm"), ClusterShape(accounting=True)) as cluster:
        yield cluster


def eventually(condition: Callable[[], object], slurm: Slurm, timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain:\n{shown(slurm)}"
        time.sleep(0.1)


def submit(slurm: Slurm, *options: str) -> str:
    job = slurm.client("sbatch", "--parsable", "--output=/dev/null", *options).strip()
    assert job, "sbatch was refused"
    return job


def shown(slurm: Slurm) -> str:
    """What the cluster says of its jobs and nodes."""
    queue = slurm.client("squeue", "--noheader", "--array", "--format=%i %T %r")
    nodes = slurm.client("sinfo", "--noheader", "--Node", "--format=%N %T %E")
    return f"{queue}{nodes}{slurm.log.read_text(encoding='utf-8')}"


def accounted(slurm: Slurm, job: str) -> str:
    states = slurm.client("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State")
    return states.strip()


def test_accounting_knows_how_a_job_ended(slurm):
    job = submit(slurm, "--wrap=exit 7")

    eventually(lambda: accounted(slurm, job) == "FAILED", slurm)


def test_a_job_that_takes_more_memory_than_it_asked_for_is_out_of_memory(slurm):
    job = submit(slurm, "--mem=50", "--wrap=head -c 200M /dev/zero | tail")

    eventually(lambda: accounted(slurm, job) == "OUT_OF_MEMORY", slurm)


def test_a_controller_that_was_killed_has_its_queue_when_it_starts_again(slurm):
    job = submit(slurm, "--hold", "--wrap=true")
    accepted = time.time()

    def is_saved() -> bool:
        """Whether it has written down what it accepted, which it does some seconds after a change."""
        slurm.client("scontrol", "update", f"JobId={job}", "Comment=changed")
        return (slurm.folder / "state" / "job_state").stat().st_mtime > accepted

    eventually(is_saved, slurm)
    assert slurm.pid is not None
    os.kill(slurm.pid, signal.SIGKILL)
    eventually(lambda: slurm.pid is None, slurm)

    slurm.start()

    assert slurm.client("squeue", "--noheader", "--format=%A %T", f"--jobs={job}").split() == [job, "PENDING"]
    slurm.client("scancel", job)


def test_stopping_ends_the_processes_of_jobs_too(tmp_path):
    # A node's sockets have paths that a folder in folders makes too long.
    with Slurm(tmp_path / ("long" * 20) / "slurm") as cluster:
        submit(cluster, "--array=1-3", "--wrap=sleep 600")
        eventually(lambda: len(cluster.client("squeue", "--noheader", "--states=running").splitlines()) == 3, cluster)
        eventually(lambda: any(list(node.processes()) for node in cluster.nodes), cluster)

    assert not any(list(node.processes()) for node in cluster.nodes)
    assert all(part.pid is None for part in cluster.parts)
