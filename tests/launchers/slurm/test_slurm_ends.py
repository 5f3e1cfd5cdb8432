import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.slurm.ends import KILLED, End, Ending, Mark, end_of, exit_code, memory_mb, status_of


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"])
def test_what_slurm_has_not_done_with_has_not_ended(state):
    assert end_of(state, 0, None) is None


@pytest.mark.parametrize(
    ("state", "status", "ending", "code"),
    [
        ("COMPLETED", 0, Ending.SUCCEEDED, 0),
        ("FAILED", 1 << 8, Ending.FAILED, 1),
        ("FAILED", 9, Ending.FAILED, KILLED),
        ("OUT_OF_MEMORY", 125, Ending.OUT_OF_MEMORY, 253),
        ("TIMEOUT", 0, Ending.TIMEOUT, KILLED),
        ("NODE_FAIL", 0, Ending.LOST_NODE, KILLED),
        ("PREEMPTED", 0, Ending.PREEMPTED, KILLED),
        ("CANCELLED by 1000", 15, Ending.CANCELLED, 143),
        ("CANCELLED+", 0, Ending.CANCELLED, KILLED),
    ],
)
def test_slurms_words_are_understood(state, status, ending, code):
    assert end_of(state, status, None) == End(ending, code)


def test_the_jobs_own_exit_code_goes_before_slurms():
    assert end_of("OUT_OF_MEMORY", 125, Mark(137)) == End(Ending.OUT_OF_MEMORY, 137, Mark(137))


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING", "NODE_FAIL", None])
def test_a_job_that_says_it_has_succeeded_has(state):
    assert end_of(state, 0, Mark(0)) == End(Ending.SUCCEEDED, 0, Mark(0))


def test_a_job_that_slurm_has_forgotten_may_still_have_said_how_it_ended():
    assert end_of(None, 0, Mark(3)) == End(Ending.FAILED, 3, Mark(3))
    assert end_of(None, 0, None) == End(Ending.LOST, KILLED)


@given(st.integers(0, 255), st.integers(0, 64))
def test_accountings_codes_and_the_queues_mean_the_same(code, signal):
    expected = 128 + signal if signal else code
    assert exit_code(status_of(f"{code}:{signal}")) == expected


@given(st.integers(1, 10**6), st.floats(0.1, 10.0), st.integers(1, 10**6), st.integers(0, 10))
def test_memory_grows_up_to_its_limit_and_never_shrinks(first, multiplier, limit, times):
    asked = [memory_mb(first, multiplier, limit, n) for n in range(times + 1)]

    assert asked[0] == first
    assert asked == sorted(asked)
    assert asked[-1] <= max(first, limit)


def test_memory_is_multiplied_for_every_time_that_it_did_not_suffice():
    assert [memory_mb(1000, 2.0, 5000, n) for n in range(4)] == [1000, 2000, 4000, 5000]
    assert memory_mb(1000, None, None, 3) == 1000
