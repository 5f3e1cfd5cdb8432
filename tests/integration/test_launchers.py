"""Submissions from graph to outcome on a real Butler, with real processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lsst.ctrl.bps import WmsStates
from lsst.daf.butler import Butler
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, judging, warm, watch  # noqa: E402
from launchers.bps import Handle  # noqa: E402
from launchers.graph import build_graph, has_datastore_records, read_summary  # noqa: E402
from launchers.judging import read_outcome  # noqa: E402
from launchers.local.service import LocalService  # noqa: E402
from launchers.local.store import JobStore  # noqa: E402
from launchers.outcome import LOST, NO_RECORDS, Outcome, TaskOutcome  # noqa: E402
from launchers.processes import ProcessIdentity  # noqa: E402
from launchers.submission import StepRequest, SubmissionKey  # noqa: E402
from resources.errors import Rejected, SiteFault  # noqa: E402

pytestmark = pytest.mark.integration

FIRST, SECOND = "2026110100001", "2026110100002"


@pytest.fixture(scope="module")
def warm_state(tmp_path_factory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("warm")
    yield state
    warm.stop(state)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path, warm_state):
    """Jobs find the toy tasks, run in forks of a warm process, and leave no trace in the user's home."""
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv(warm.STATE_VARIABLE, str(warm_state))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


@pytest.fixture
def request_for(tmp_path) -> Callable[..., StepRequest]:
    root = make_repository(tmp_path / "repo")

    def make(name: str = "submission", **changes) -> StepRequest:
        return make_request(root, tmp_path / name, **changes)

    return make


def behaving(**behaviour: str) -> dict[str, tuple[str, ...]]:
    """Overrides that make quanta behave, by ``x<exposure>_<detector>``."""
    by_quantum = {key[1:].replace("_", "-"): value for key, value in behaviour.items()}
    return {"config_overrides": (f"double:behaviour={by_quantum}",)}


def submit(request: StepRequest) -> Handle:
    return bps.submit(request, build_graph(request))


def run(request: StepRequest) -> Outcome:
    handle = submit(request)
    watch.watch(handle, poll_s=0.1)
    return read_outcome(request, handle)


def wait_until(condition: Callable[[], object], timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def store_of(request: StepRequest) -> JobStore:
    return JobStore(request.submit_path)


def driver_of(request: StepRequest) -> ProcessIdentity:
    wait_until(lambda: "driver" in store_of(request).read_facts())
    return ProcessIdentity.parse(store_of(request).read_facts()["driver"])


def workers_of(request: StepRequest) -> list[int]:
    """Processes that execute quanta of a submission."""
    command = f"run-qbb .*{request.folder}/.*{request.graph_path.name}"
    found = subprocess.run(["pgrep", "-f", command], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_all_quanta_are_done_and_counted_by_the_partition_that_an_exposure_implies(request_for):
    request = request_for()

    outcome = run(request)

    assert outcome.complete
    assert outcome.tasks == {"double": TaskOutcome(8, 8), "square": TaskOutcome(8, 8), "sum": TaskOutcome(4, 4)}
    totals = {key[1:]: value.count for key, value in outcome.datasets.items() if key[0] == "toy_total"}
    # One in each of two bands, which an exposure only implies.
    assert totals == {("20261101", ""): 2, ("20261102", ""): 2}
    assert {key[0] for key in outcome.datasets} == {"toy_doubled", "toy_squared", "toy_total"}
    assert all(each.bytes > 0 for each in outcome.datasets.values())
    assert outcome.cpu_s > 0.0
    assert outcome.peak_memory_mb > 50.0
    with Butler.from_config(request.butler, collections="toy") as butler:
        assert butler.get("toy_total", instrument="ToyCam", exposure=int(FIRST)) == {"value": 4 + 16}


def test_a_failed_quantum_blocks_its_descendants_alone_and_is_named_with_its_cause(request_for):
    request = request_for(**behaving(x2026110100001_1="raise"))

    outcome = run(request)

    assert not outcome.complete
    assert outcome.worked
    assert outcome.tasks == {
        "double": TaskOutcome(8, 7, failed=1),
        "square": TaskOutcome(8, 7, blocked=1),
        "sum": TaskOutcome(4, 3, blocked=1),
    }
    (failure,) = outcome.failures
    assert failure.task == "double"
    assert failure.data_id == {"instrument": "ToyCam", "exposure": int(FIRST), "detector": 1}
    assert (failure.exception, failure.message) == ("toy_tasks.EvilData", "this exposure is evil")
    assert failure.node == platform.node()
    assert Path(failure.log.removeprefix("file://")).exists()


def test_no_work_is_a_success_with_a_caveat(request_for):
    outcome = run(request_for(**behaving(x2026110100001_1="no work")))

    assert outcome.complete
    assert outcome.tasks["double"] == TaskOutcome(8, 8, caveats=1)


def test_a_quantum_that_kills_its_process_is_tried_again_and_then_said_to_be_lost(request_for):
    request = request_for(**behaving(x2026110100001_1="die"))

    outcome = run(request)

    lost = [failure for failure in outcome.failures if failure.exception == LOST]
    assert any(failure.data_id.get("exposure") == int(FIRST) for failure in lost)
    # The quantum has left no log, but its job has.
    assert all(failure.node == platform.node() for failure in lost)
    assert all(Path(failure.log.removeprefix("file://")).is_file() for failure in lost)
    assert outcome.worked
    jobs = store_of(request).read_jobs()
    assert sorted(job.attempt for job in jobs if not job.is_final) == [1, 2]
    assert [job.exit_code for job in jobs if job.attempt == 2] == [137]


def test_a_job_killed_from_outside_is_done_again(request_for):
    request = request_for(**behaving(x2026110100001_1="slow"))
    handle = submit(request)
    wait_until(lambda: len(store_of(request).read_running()) == 2)
    wait_until(lambda: all(running.process for running in store_of(request).read_running().values()))

    for running in store_of(request).read_running().values():
        assert running.process is not None
        running.process.send_to_group(signal.SIGKILL)
    watch.watch(handle, poll_s=0.1)

    assert read_outcome(request, handle).complete
    assert all(job.attempt == 2 for job in store_of(request).read_jobs() if not job.is_final)


def test_the_same_request_twice_is_one_submission(request_for):
    request = request_for()
    graph = build_graph(request)

    first = bps.submit(request, graph)
    second = bps.submit(request, graph)

    assert first == second == bps.find(request.folder)
    watch.watch(first, poll_s=0.1)
    assert all(job.attempt == 1 for job in store_of(request).read_jobs())


def test_a_crash_between_submitting_and_writing_so_does_not_submit_twice(request_for):
    request = request_for()
    graph = build_graph(request)
    handle = bps.submit(request, graph)
    driver = driver_of(request)
    record = request.folder / "handle.json"
    record.write_text(str(dataclasses.replace(handle, wms_id="")))

    assert bps.submit(request, graph) == handle

    assert driver_of(request) == driver
    assert record.read_text() == f"{handle}\n"
    watch.watch(handle, poll_s=0.1)


def test_a_crash_before_submitting_leaves_nothing_in_the_way(request_for, monkeypatch):
    request = request_for()
    graph = build_graph(request)
    with monkeypatch.context() as patched:
        patched.setattr(LocalService, "submit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bps.submit(request, graph)
    assert bps.find(request.folder) is None

    handle = bps.submit(request, graph)

    assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"


def test_a_killed_driver_is_noticed_and_its_jobs_are_taken_over(request_for):
    request = request_for(**behaving(x2026110100001_1="slow"))
    handle = submit(request)
    driver = driver_of(request)
    wait_until(lambda: len(store_of(request).read_running()) == 2)

    driver.send(signal.SIGKILL)
    wait_until(lambda: not driver.is_alive)
    state, message = LocalService({}).get_status(handle.wms_id)
    assert state is WmsStates.HELD
    assert "bps restart" in message
    last = watch.watch(handle, poll_s=0.1)

    assert last.state == "SUCCEEDED"
    assert read_outcome(request, handle).complete
    assert all(job.attempt == 1 for job in store_of(request).read_jobs())
    assert driver_of(request) != driver


def test_what_ended_while_there_was_no_driver_is_not_done_again(request_for):
    request = request_for()
    handle = submit(request)
    driver = driver_of(request)
    wait_until(lambda: len(store_of(request).read_running()) == 2)
    driver.send(signal.SIGKILL)
    wait_until(lambda: len(list((request.submit_path / "jobs").glob("*.1.exit"))) == 2)

    wms_id, name, message = LocalService({}).restart(handle.wms_id)

    assert (wms_id, name, message) == (handle.wms_id, handle.name, "")
    assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"
    assert all(job.attempt == 1 for job in store_of(request).read_jobs())


def test_cancelling_ends_every_process_of_the_jobs(request_for):
    request = request_for(**behaving(x2026110100001_1="hang"))
    handle = submit(request)
    wait_until(lambda: workers_of(request))

    watch.cancel(handle)

    assert watch.look(handle).state == "DELETED"
    wait_until(lambda: not workers_of(request))
    assert not driver_of(request).is_alive


def test_a_workflow_without_a_driver_can_be_cancelled_too(request_for):
    request = request_for(**behaving(x2026110100001_1="hang"))
    handle = submit(request)
    wait_until(lambda: workers_of(request))
    driver_of(request).send(signal.SIGKILL)

    watch.cancel(handle)

    assert watch.look(handle).state == "DELETED"
    wait_until(lambda: not workers_of(request))


def test_a_cancelled_workflow_can_be_restarted(request_for):
    request = request_for(**behaving(x2026110100001_1="slow"))
    handle = submit(request)
    wait_until(lambda: workers_of(request))
    watch.cancel(handle)

    again = watch.restart(handle)

    assert again == handle
    assert watch.watch(again, poll_s=0.1).state == "SUCCEEDED"
    assert read_outcome(request, again).complete


def test_a_workflow_that_is_over_can_be_restarted_and_judged_again(request_for):
    request = request_for(**behaving(x2026110100001_1="raise"))
    first = run(request)
    handle = bps.find(request.folder)
    assert handle is not None

    watch.restart(handle)

    assert watch.watch(handle, poll_s=0.1).state == "FAILED"
    assert read_outcome(request, handle).tasks == first.tasks
    assert [job.attempt for job in store_of(request).read_jobs() if job.is_final] == [1]


def test_a_job_that_takes_too_long_is_ended(request_for):
    settings = {"localCores": 2, "requestWalltime": 0.005, "numberOfRetries": 0}
    request = request_for(bps=settings, **behaving(x2026110100001_1="hang"))

    outcome = run(request)

    assert not outcome.complete
    assert outcome.worked
    assert {failure.exception for failure in outcome.failures} == {LOST}
    assert all(failure.message.startswith("out of time: ") for failure in outcome.failures)


def test_an_empty_graph_names_the_input_that_is_missing_for_these_data(request_for):
    request = request_for(data_query="instrument = 'ToyCam' AND exposure.day_obs = 20270101")

    with pytest.raises(Rejected, match=r"numbers has toy_number, but none with .*20270101"):
        build_graph(request)

    assert not request.graph_path.exists()


def test_an_empty_graph_names_the_input_that_does_not_exist_at_all(request_for):
    with Butler.from_config(request_for().butler, writeable=True) as butler:
        butler.collections.register("nothing")

    with pytest.raises(Rejected, match="there is no toy_number in nothing"):
        build_graph(request_for(input_collections=("nothing",)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data_query": "instrument = "}, "the query makes no sense"),
        ({"pipeline": f"{TOY}/toy_pipeline.yaml#step9"}, "the pipeline cannot be read"),
        ({"pipeline": f"{TOY}/nowhere.yaml"}, "the pipeline cannot be read"),
        ({"config_overrides": ("double:nonsense=1",)}, "the pipeline cannot be read"),
        ({"config_overrides": ("double",)}, "not of the form"),
        ({"input_collections": ("unheard/of",)}, "unheard/of"),
    ],
)
def test_bad_input_is_said_in_one_line_before_anything_is_submitted(request_for, changes, complaint):
    request = request_for(**changes)

    with pytest.raises(Rejected) as caught:
        build_graph(request)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not request.submit_path.exists()


@pytest.mark.parametrize("kept", ["nothing", "the graph"])
def test_a_full_folder_is_said_in_one_line_and_leaves_nothing_running(request_for, tmp_path, kept):
    request = request_for("full/submission")
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        graph = build_graph(request) if kept == "the graph" else None
        with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

        with pytest.raises(SiteFault) as refused:
            bps.submit(request, graph or build_graph(request))

        assert "there is no space left" in str(refused.value)
        assert str(request.folder) in str(refused.value)
        assert bps.find(request.folder) is None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_rescue_does_what_failed_and_nothing_else(request_for):
    first = request_for(**behaving(x2026110100001_1="raise"))
    run(first)
    key = SubmissionKey("toy", "step1", first.key.partitions, attempt=2)
    done = (first.key.run_collection,)
    second = request_for(
        "rescue", key=key, input_collections=(*done, "numbers"), skip_existing_in=done, config_overrides=()
    )

    outcome = run(second)

    assert outcome.complete
    assert {label: task.expected for label, task in outcome.tasks.items()} == {"double": 1, "square": 1, "sum": 1}
    third = dataclasses.replace(
        second,
        key=SubmissionKey("toy", "step1", key.partitions, attempt=3),
        folder=second.folder.with_name("third"),
        skip_existing_in=(*done, key.run_collection),
    )
    with pytest.raises(Rejected, match="nothing is left to do"):
        build_graph(third)


def write_without_records(request: StepRequest) -> None:
    """Save a request's graph again, without what says where the inputs are."""
    with PredictedQuantumGraph.open(str(request.graph_path)) as reader:
        reader.read_all()
        components = reader.components
    for quantum in components.quantum_datasets.values():
        quantum.datastore_records.clear()
    components.write(str(request.graph_path))


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ({"exposure": int(FIRST)}, {"double": 6, "square": 6, "sum": 3}),
        ({"day_obs": 20261101}, {"double": 4, "square": 4, "sum": 2}),
        ({"band": "g", "detector": 1}, {"double": 6, "square": 6, "sum": 4}),
        ({"physical_filter": "r_1", "day_obs": 20261102}, {"double": 6, "square": 6, "sum": 3}),
    ],
)
def test_what_a_data_id_implies_is_quarantined_as_what_it_says(request_for, part, left):
    assert build_graph(request_for(quarantined=(part,))).quanta == left


def test_a_graph_without_datastore_records_is_not_submitted(request_for):
    request = request_for()
    graph = build_graph(request)
    assert has_datastore_records(graph.path)
    write_without_records(request)

    with pytest.raises(Rejected, match="no datastore records"):
        bps.submit(request, graph)


def test_nothing_done_with_exit_code_zero_is_not_called_a_success(request_for, monkeypatch):
    request = request_for()
    graph = build_graph(request)
    write_without_records(request)
    monkeypatch.setattr(bps, "has_datastore_records", lambda path: True)

    handle = bps.submit(request, graph)

    assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"
    outcome = read_outcome(request, handle)
    assert not outcome.complete
    assert not outcome.worked
    assert {failure.exception for failure in outcome.failures} == {NO_RECORDS}


def test_a_final_job_that_did_not_come_is_made_up_for(request_for):
    request = request_for(bps={"localCores": 2, "finalJob": {"whenRun": "NEVER"}})

    outcome = run(request)

    assert outcome.complete
    with Butler.from_config(request.butler, collections="toy") as butler:
        assert len(butler.query_datasets("toy_total")) == 4


def test_what_a_final_job_writes_where_its_worker_can_is_not_gathered_again(request_for, tmp_path, monkeypatch):
    place = "file://" + str(tmp_path / "shared" / "{uniqProcName}.qg")
    request = request_for(bps={"localCores": 2, "provenanceOnWorkers": place})
    monkeypatch.setattr(judging, "aggregate_graph", lambda *_: pytest.fail("gathered again"))

    outcome = run(request)

    assert outcome.complete
    assert (tmp_path / "shared" / f"{request.key.name}.qg").exists()


def test_the_summary_of_a_graph_can_be_read_back(request_for):
    request = request_for()
    assert read_summary(request) is None

    assert build_graph(request) == read_summary(request)


def test_plain_bps_submits_reports_and_lists(request_for, tmp_path, warm_state):
    request = request_for()
    graph = build_graph(request)
    configuration = tmp_path / "plain.yaml"
    configuration.write_text(
        f"""
wmsServiceClass: launchers.local.service.LocalService
qgraphFile: {graph.path}
submitPath: {tmp_path}/plain
project: toy
campaign: plain
localCores: 2
payload: {{payloadName: p, butlerConfig: {request.butler}, inCollection: numbers, output: toy,
  outputRun: {request.key.run_collection}, dataQuery: ""}}
"""
    )
    tool = warm.write_shims(warm_state) / "bps"
    environment = os.environ | {"BPS_WMS_SERVICE_CLASS": "launchers.local.service.LocalService"}
    environment["PATH"] = f"{tool.parent}:{Path(sys.executable).parent}:{environment['PATH']}"

    def call(*arguments: str) -> str:
        done = subprocess.run([tool, *arguments], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert f"Run Id: {tmp_path}/plain" in call("submit", str(configuration))
    handle = Handle("launchers.local.service.LocalService", f"{tmp_path}/plain", "p", f"{tmp_path}/plain")
    assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"
    report = call("report", "--id", handle.wms_id)
    assert "SUCCEEDED" in report
    assert "pipetaskInit" in report
    assert "finalJob" in report
    call("ping")
    assert str(tmp_path / "plain") in call("report", "--hist", "1")
