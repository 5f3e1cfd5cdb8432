"""Quanta that share a datastore end exactly as those of ``pipetask run-qbb``."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lsst.daf.butler import Butler

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, warm, watch  # noqa: E402
from launchers.graph import build_graph  # noqa: E402
from launchers.judging import read_outcome  # noqa: E402
from launchers.outcome import Outcome  # noqa: E402
from launchers.submission import StepRequest, SubmissionKey  # noqa: E402

pytestmark = pytest.mark.integration

COMMAND = "drp-quanta {butlerConfig} {fileDistributionEndPoint}{qgraphFile} --qgraph-node-id {qgraphNodeId}"
EVIL = {"2026110100001-1": "raise", "2026110200001-0": "no work"}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv(warm.STATE_VARIABLE, str(tmp_path / "warm"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    yield
    warm.stop(tmp_path / "warm")


def outcome_of(request: StepRequest) -> Outcome:
    handle = bps.submit(request, build_graph(request))
    watch.watch(handle, poll_s=0.1)
    return read_outcome(request, handle)


def values(root: str, run: str) -> dict[str, object]:
    """Everything that a run made, by dataset type and data ID."""
    with Butler.from_config(root) as butler:
        found = butler.query_all_datasets(collections=[run], name="toy_*")
        return {
            f"{ref.datasetType.name} {ref.dataId}": butler.get(ref)
            for ref in found
            if ref.datasetType.storageClass_name == "StructuredDataDict"
        }


def test_one_that_fails_and_one_that_has_no_work_change_nothing_else(tmp_path):
    root = make_repository(tmp_path / "repo")
    stock = make_request(root, tmp_path / "stock", config_overrides=(f"double:behaviour={EVIL}",))
    ours = dataclasses.replace(
        stock,
        key=SubmissionKey("toy", "step1", stock.key.partitions, attempt=2),
        folder=tmp_path / "ours",
        bps={**stock.bps, "runQuantumCommand": COMMAND},
    )

    expected, found = outcome_of(stock), outcome_of(ours)

    assert "drp-quanta" in next((ours.submit_path / "jobs").glob("double*.sh")).read_text()
    assert expected.tasks["double"].failed == 1
    assert found.tasks == expected.tasks
    assert [(f.task, f.data_id, f.exception, f.message) for f in found.failures] == [
        (f.task, f.data_id, f.exception, f.message) for f in expected.failures
    ]
    assert {key: dataset.count for key, dataset in found.datasets.items()} == {
        key: dataset.count for key, dataset in expected.datasets.items()
    }
    assert values(root, ours.key.run_collection) == values(root, stock.key.run_collection)


def test_what_is_done_already_is_left_as_it_is(tmp_path):
    root = make_repository(tmp_path / "repo")
    request = make_request(root, tmp_path / "twice")
    graph = build_graph(request)
    command = [str(Path(sys.executable).with_name("drp-quanta")), root, str(graph.path)]

    first = subprocess.run(command, capture_output=True, text=True, check=True)
    files = {path: path.stat().st_mtime_ns for path in Path(root, *request.key.run_collection.split("/")).rglob("*.*")}
    second = subprocess.run(command, capture_output=True, text=True, check=True)

    assert f"Executed {graph.total} quanta successfully, 0 failed" in first.stderr + first.stdout
    assert "already" in second.stderr + second.stdout or "kipping" in second.stderr + second.stdout
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_a_quantum_that_fails_is_told_by_the_exit_code(tmp_path):
    root = make_repository(tmp_path / "repo")
    request = make_request(root, tmp_path / "evil", config_overrides=(f"double:behaviour={EVIL}",))
    command = [str(Path(sys.executable).with_name("drp-quanta")), root, str(build_graph(request).path)]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1


def test_nothing_of_a_process_stays_in_the_folder_for_temporary_files(tmp_path):
    root = make_repository(tmp_path / "repo")
    request = make_request(root, tmp_path / "tidy")
    command = [str(Path(sys.executable).with_name("drp-quanta")), root, str(build_graph(request).path)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(temporary)})

    assert not list(temporary.iterdir())
