import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from launchers.submission import StepRequest, SubmissionKey

partitions = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True)


def test_names_say_release_step_partitions_and_attempt():
    key = SubmissionKey("demo", "step1a", ("20261101", "20261102"), attempt=2)

    assert key.name == f"demo_step1a_{key.digest}_2"
    assert key.run_collection == f"demo/step1a/{key.digest}/2"
    assert len(key.digest) == 8


@given(partitions)
def test_the_order_of_partitions_does_not_matter(names):
    assert SubmissionKey("r", "s", tuple(names)).name == SubmissionKey("r", "s", tuple(reversed(names))).name


@given(partitions, partitions)
def test_other_partitions_have_another_name(some, others):
    one, other = SubmissionKey("r", "s", tuple(some)), SubmissionKey("r", "s", tuple(others))

    assert (one.digest == other.digest) == (set(some) == set(others))


def test_the_name_is_the_same_in_every_process():
    code = "from launchers.submission import SubmissionKey as K; print(K('r', 's', ('1', '2')).name)"
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert names == {SubmissionKey("r", "s", ("1", "2")).name + "\n"}


def test_everything_of_a_submission_is_in_its_folder():
    key = SubmissionKey("r", "s", ("1",))
    request = StepRequest(key, "repo", "p.yaml", ("raw",), "r", "", Path("/state/x"))

    assert {request.graph_path.parent, request.submit_path.parent, request.provenance_path.parent} == {Path("/state/x")}
