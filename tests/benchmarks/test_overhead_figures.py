from benchmarks.bare import BareTime
from benchmarks.comparison import Comparison
from benchmarks.finished import FinishedSubmission, last_attempts
from benchmarks.loading import Loading
from benchmarks.overhead import loading_results, marginal_results, step_results, submission_results
from benchmarks.toy_submissions import Timing


def submission(name="demo_step1a_0123abcd_1", *, run=(100.0, 120.0), executions=((105.0, 108.0), (110.0, 117.0))):
    return FinishedSubmission(name, "instrument = 'SimCam'", {"isr": 2}, run, tuple(executions))


def values(results):
    return {result.name: result.value for result in results}


def test_a_submissions_name_tells_its_step_even_of_a_release_whose_name_has_underscores():
    assert submission("dp_two_step1a_0123abcd_3").step == "step1a"


def test_the_fixed_cost_is_what_lies_around_the_quanta():
    assert submission().around_s == 8.0


def test_time_between_two_jobs_has_no_quantum_either():
    assert submission().without_quantum_s == 10.0


def test_fixed_costs_are_told_by_median_and_largest():
    runs = [submission(run=(100.0, end)) for end in (118.0, 119.0, 127.0)]

    found = values(submission_results(runs))

    assert found["submission_fixed_median"] == 7.0
    assert found["submission_fixed_largest"] == 15.0


def test_of_attempts_at_the_same_work_the_last_counts():
    first, other, again = (submission(f"demo_{work}") for work in ("step1a_aa_1", "step1b_aa_1", "step1a_aa_2"))

    assert last_attempts([first, other, again]) == [other, again]


def test_the_ratio_of_the_steps_is_of_sums_and_what_runs_at_once_counts_twice_but_in_the_elapsed_one():
    one, other = submission("demo_step1a_aa_1", run=(0.0, 20.0)), submission("demo_step1c_aa_1", run=(10.0, 40.0))
    compared = [Comparison(one, BareTime(5.0, 0)), Comparison(other, BareTime(20.0, 1))]

    results = step_results([one, other], compared, 2.5)

    assert values(results) == {
        "steps_platform": 50.0,
        "steps_bare": 25.0,
        "steps_ratio": 2.0,
        "steps_elapsed_ratio": 1.6,
        "submissions_repeated": 0,
        "submissions_not_compared": 0,
        "bare_quanta_failed": 1,
    }
    assert {result.name: result.met for result in results}["steps_elapsed_ratio"] is True


def test_what_was_repeated_or_could_not_be_compared_is_told():
    first, again, other = (submission(f"demo_{work}") for work in ("step1a_aa_1", "step1a_aa_2", "step1b_aa_1"))

    found = values(step_results([first, again, other], [Comparison(again, BareTime(10.0, 0))], None))

    assert found["submissions_repeated"] == 1
    assert found["submissions_not_compared"] == 1


def test_the_marginal_cost_leaves_out_what_bare_execution_takes_too():
    timings = [Timing(20, 6.0, 0.1, 0.2), Timing(420, 10.0, 1.3, 2.2)]

    found = values(marginal_results(timings))

    assert round(found["marginal_cost"], 6) == 5.0
    assert round(found["marginal_cost_beside_quanta"], 6) == 7.0


def test_one_connection_while_loading_is_one_too_many():
    load, connections = loading_results([Loading(2.0, ()), Loading(3.0, ("socket.connect",)), Loading(9.0, ())])

    assert load.value == 3.0
    assert connections.met is False
