import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.arithmetic import Cost, covered_s, marginal_s, median, span_s

moments = st.integers(0, 60)
intervals = st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))), max_size=8)


def test_time_in_which_two_intervals_overlap_counts_once():
    assert covered_s([(5.0, 9.0), (0.0, 6.0)]) == 9.0


def test_time_between_intervals_counts_in_the_span_only():
    gapped = [(10.0, 11.0), (0.0, 2.0)]

    assert covered_s(gapped) == 3.0
    assert span_s(gapped) == 11.0


def test_an_interval_within_another_adds_nothing():
    assert covered_s([(0.0, 10.0), (2.0, 3.0), (9.0, 12.0)]) == 12.0


def test_nothing_covers_no_time():
    assert covered_s([]) == span_s([]) == 0.0


@given(intervals)
def test_covered_time_is_what_counting_each_second_gives(given_intervals):
    seconds = {second for begin, end in given_intervals for second in range(begin, end)}

    assert covered_s(given_intervals) == len(seconds)


def test_what_a_submission_costs_whatever_its_size_is_not_marginal():
    assert marginal_s([Cost(20, 6.0), Cost(420, 8.0)]) == pytest.approx(0.005)


def test_of_several_pairs_the_one_in_the_middle_counts():
    costs = [Cost(20, 6.0), Cost(420, 8.0), Cost(20, 6.0), Cost(420, 46.0), Cost(20, 5.0), Cost(420, 6.2)]

    assert marginal_s(costs) == pytest.approx(0.005)


def test_a_marginal_cost_of_one_size_alone_is_refused():
    with pytest.raises(ValueError, match="after a smaller one"):
        marginal_s([Cost(20, 6.0), Cost(20, 7.0)])


def test_the_median_of_an_even_number_is_between_the_two_in_the_middle():
    assert median([9.0, 1.0, 3.0]) == 3.0
    assert median([9.0, 1.0, 3.0, 5.0]) == 4.0


def test_nothing_has_no_median():
    with pytest.raises(ValueError, match="no median"):
        median([])
