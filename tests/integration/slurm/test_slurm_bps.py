"""Plain ``bps`` command lines on a real Slurm, with quanta of a toy pipeline, and the launchers on top of it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from lsst.ctrl.bps import WmsStates

TOY = Path(__file__).parents[2] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, reattach, watch  # noqa: E402
from launchers.bps import Handle  # noqa: E402
from launchers.graph import build_graph  # noqa: E402
from launchers.judging import read_outcome  # noqa: E402
from launchers.outcome import LOST, TaskOutcome  # noqa: E402
from launchers.slurm import service  # noqa: E402
from launchers.slurm.store import JobStore  # noqa: E402
from launchers.step_run import launch_and_watch  # noqa: E402
from launchers.submission import StepRequest  # noqa: E402
from resources.errors import Rejected  # noqa: E402
from services.slurm import ClusterShape, Slurm  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

SERVICE = "launchers.slurm.service.SlurmService"
SETTINGS = {
    "wmsServiceClass": SERVICE,
    "computeSite": "slurm",
    "slurmPollInterval": 1,
    "requestMemory": 1000,
    "finalJob": {"requestCpus": 1, "requestMemory": 1500},
}
EVIL = "2026110100001-1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm"), ClusterShape(cpus=4, memory_mb=8000)) as started:
        yield started


@pytest.fixture
def request_for(cluster, monkeypatch, tmp_path) -> Callable[..., StepRequest]:
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    root = make_repository(tmp_path / "repo", exposures=1)

    def make(behaviour: str = "", **settings) -> StepRequest:
        overrides = (f"double:behaviour={ {EVIL: behaviour} }",) if behaviour else ()
        return make_request(root, tmp_path / "w", config_overrides=overrides, bps={**SETTINGS, **settings})

    return make


def call(*arguments: str, expect: int = 0, stream: str = "stdout") -> str:
    """Run ``bps`` as an operator does, and give what it prints."""
    programs = Path(sys.executable).parent
    environment = os.environ | {"BPS_WMS_SERVICE_CLASS": SERVICE, "PATH": f"{programs}:{os.environ['PATH']}"}
    tool = programs / "bps"
    done = subprocess.run([tool, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return str(getattr(done, stream))


def configuration(request: StepRequest) -> Path:
    graph = build_graph(request)
    file = request.folder / "plain.yaml"
    file.write_text(
        f"""
wmsServiceClass: {SERVICE}
qgraphFile: {graph.path}
submitPath: {request.submit_path}
project: toy
campaign: plain
updateQuantumGraph: "true"
slurmPollInterval: 1
requestMemory: 1000
finalJob: {{requestCpus: 1, requestMemory: 1500}}
extraAggregateOptions: -o {request.provenance_path}
payload: {{payloadName: p, butlerConfig: {request.butler}, inCollection: numbers, output: toy,
  outputRun: {request.key.run_collection}, dataQuery: "", runInit: false}}
"""
    )
    return file


def wait_until_over(request: StepRequest, timeout_s: float = 600.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not JobStore(request.submit_path).read_facts().get("ended_at"):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def row(report: str, label: str) -> dict[str, int]:
    """Read a label's counts from the detailed report."""
    lines = report.splitlines()
    (heads,) = {line for line in lines if "EXPECTED" in line}
    # The exit codes come after, by the same labels.
    counts = next(line.split()[1:] for line in lines if line.split()[:1] == [label])
    return {head: int(count) for head, count in zip(heads.split(), counts, strict=True) if count != "0"}


def attempts(request: StepRequest) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for job in JobStore(request.submit_path).read()[0].jobs:
        found.setdefault(job.state.name, set()).add(job.attempt)
    return found


def test_bps_submits_reports_and_restarts_and_one_bad_detector_blocks_its_descendants_alone(request_for):
    request = request_for("raise")
    wms_id = str(request.submit_path)

    assert f"Run Id: {wms_id}" in call("submit", str(configuration(request)))
    call("ping")
    assert wms_id in call("report")
    wait_until_over(request)

    report = call("report", "--id", wms_id, "--return-exit-codes")
    assert row(report, "double") == {"SUCCEEDED": 3, "FAILED": 1, "EXPECTED": 4}
    assert row(report, "square") == {"SUCCEEDED": 3, "PRUNED": 1, "EXPECTED": 4}
    assert row(report, "sum") == {"SUCCEEDED": 1, "PRUNED": 1, "EXPECTED": 2}
    assert row(report, "finalJob") == {"SUCCEEDED": 1, "EXPECTED": 1}
    assert "Quanta: 7 succeeded" in report
    assert "WARNING" not in report
    call("status", "--id", wms_id, expect=WmsStates.FAILED.value)
    outcome = read_outcome(request, Handle(SERVICE, wms_id, "p", wms_id))
    assert outcome.tasks == {
        "double": TaskOutcome(4, 3, failed=1),
        "square": TaskOutcome(4, 3, blocked=1),
        "sum": TaskOutcome(2, 1, blocked=1),
    }
    assert [failure.exception for failure in outcome.failures] == ["toy_tasks.EvilData"]

    request.provenance_path.unlink()
    assert "Run Name" in call("restart", "--id", wms_id)
    wait_until_over(request)
    assert attempts(request) == {"SUCCEEDED": {1, 2}, "FAILED": {2}, "PRUNED": {1}}


def test_bps_cancels(request_for, cluster):
    request = request_for("hang")
    wms_id = str(request.submit_path)
    call("submit", str(configuration(request)))

    assert f"Successfully canceled job with id '{wms_id}'" in call("cancel", "--id", wms_id)

    call("status", "--id", wms_id, expect=WmsStates.DELETED.value)
    assert "No job matches" in call("cancel", "--user", "nobody")
    left = cluster.client("squeue", "--noheader", "--states=pending,running", "--format=%j")
    assert all(name.startswith("bps-dispatcher-") for name in left.split())


def test_bps_says_what_is_wrong_in_one_line(request_for, cluster):
    request = request_for()
    file = configuration(request)
    file.write_text(file.read_text() + "queue: nowhere\n")

    complaints = call("submit", str(file), expect=1, stream="stderr").splitlines()

    assert not any("Traceback" in line for line in complaints)
    said = [line for line in complaints if line.startswith("Error: ")]
    assert said == ["Error: double: there is no queue nowhere; there are main, small, urgent"]


BROKEN = "description: Broken.\ntasks: {double: toy_tasks.DoubleTask"
UNKNOWN = "description: Unknown.\ntasks:\n  double: toy_tasks.NoSuchTask\n"


@pytest.mark.parametrize(
    ("pipeline", "changes", "complaint"),
    [
        (BROKEN, {}, "pipeline.yaml, line 2"),
        (UNKNOWN, {}, "the pipeline cannot be read"),
        ("", {"pipeline": f"{TOY / 'toy_pipeline.yaml'}#step9"}, "the pipeline cannot be read"),
        ("", {"data_query": "instrument = 'ToyCam' AND exposure.day_obs = 20270101"}, "but none with"),
    ],
    ids=["a pipeline that doesn't parse", "a task that isn't there", "a step that isn't in it", "an empty graph"],
)
def test_slurm_never_hears_of_what_makes_no_graph(request_for, cluster, tmp_path, pipeline, changes, complaint):
    if pipeline:
        (tmp_path / "pipeline.yaml").write_text(pipeline)
        changes = {"pipeline": str(tmp_path / "pipeline.yaml")}
    request = dataclasses.replace(request_for(), **changes)

    with pytest.raises(Rejected) as caught:
        build_graph(request)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not request.submit_path.exists()
    assert str(request.submit_path) not in cluster.client("squeue", "--noheader", "--states=all", "--format=%Z")


def test_a_submission_through_the_launchers_is_made_once_and_watched_to_its_end(request_for):
    request = request_for(clusterAlgorithm="launchers.clustering.balanced_clustering", clusterCount=2)
    graph = build_graph(request)

    first = bps.submit(request, graph)
    second = bps.submit(request, graph)
    last = watch.watch(first, poll_s=0.5, quanta_total=graph.total)

    assert first == second == bps.find(request.folder)
    assert (last.state, last.quanta_done, last.quanta_failed) == ("SUCCEEDED", graph.total, 0)
    assert read_outcome(request, first).complete
    assert all(job.attempt == 1 for job in JobStore(request.submit_path).read()[0].jobs)


def test_a_run_that_submits_while_the_controller_is_down_waits_for_it_and_submits_once(
    request_for, cluster, monkeypatch
):
    warned: list[str] = []

    def start_it_again(line: str) -> None:
        warned.append(line)
        cluster.start()

    monkeypatch.setattr(reattach, "record_launch", lambda *_: None)
    monkeypatch.setattr(service, "_BETWEEN_TRIES_S", 0.1)
    log = SimpleNamespace(info=lambda line: None, warning=start_it_again)
    request = request_for()
    cluster.controller.stop()

    outcome = launch_and_watch(SimpleNamespace(run_id="run", instance=None, log=log), request, poll_s=0.5)

    assert outcome.complete
    assert "is not submitted yet" in warned[0]
    assert "Slurm doesn't answer" in warned[0]
    assert attempts(request) == {"SUCCEEDED": {1}}


def test_a_quantum_that_hangs_is_out_of_time_on_its_node_with_its_jobs_log(request_for, cluster):
    request = request_for("hang", numberOfRetries=0)
    handle = bps.submit(request, build_graph(request))

    def doubles(state: WmsStates) -> list[str]:
        ((report,), _) = handle.service().report(wms_workflow_id=handle.wms_id)
        return [job.wms_id for job in report.jobs or () if job.label == "double" and job.state is state]

    deadline = time.monotonic() + 600.0
    while len(doubles(WmsStates.SUCCEEDED)) < 3 or not doubles(WmsStates.RUNNING):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
    cluster.client("scontrol", "update", f"jobid={doubles(WmsStates.RUNNING)[0]}", "timelimit=00:00:01")
    watch.watch(handle, poll_s=0.5)

    (failure,) = read_outcome(request, handle).failures
    assert failure.exception == LOST
    assert failure.message == "out of time: its job was ended before it could say more"
    assert failure.node in cluster.client("sinfo", "--noheader", "--Node", "--format=%N").split()
    log = Path(failure.log.removeprefix("file://"))
    assert log.parent.parent == request.submit_path / "logs"
    assert log.is_file()
