import math

import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from planning.release import Threshold
from validation.metrics import Combination, Measurement, combine, measurements_of, read_metrics

RULES = [
    Threshold(metric="PA1", minimum=8.0, unit="mmag", source="LPM-17 PA1"),
    Threshold(metric="AA1", kind="absolute_at_most", minimum=5.0, unit="mas", source="LPM-17 AA1"),
    Threshold(metric="completeness", kind="at_least", minimum=0.9, source="science 15"),
]


def in_tracts(metric, values, unit=""):
    return [Measurement(metric, "r", value, unit, 10, tract=tract) for tract, value in enumerate(values)]


def test_a_row_that_is_not_measurable_has_no_value_whatever_its_number_says():
    table = Table(
        rows=[
            ("PA1", "r", 6.5, "mmag", 120, True, "S/N > 200"),
            ("AM3", "r", 0.0, "mas", 0, False, "field too small"),
            ("PA3", "", math.nan, "mmag", 3, True, ""),
        ],
        names=("metric", "band", "value", "unit", "n", "measurable", "detail"),
    )
    assert measurements_of(table, 7) == (
        Measurement("PA1", "r", 6.5, "mmag", 120, "S/N > 200", 7),
        Measurement("AM3", "r", None, "mas", 0, "field too small", 7),
        Measurement("PA3", "", None, "mmag", 3, "", 7),
    )


@pytest.mark.parametrize(
    ("metric", "values", "unit", "worst"),
    [
        ("PA1", (5.0, 9.0, 6.0), "mmag", 9.0),
        ("AA1", (2.0, -4.0, 1.0), "mas", -4.0),
        ("completeness", (0.95, 0.91, 0.99), "", 0.91),
    ],
)
def test_the_worst_tract_is_the_one_farthest_in_the_bad_direction(metric, values, unit, worst):
    (combined,) = combine(in_tracts(metric, values, unit), RULES)
    assert combined.value == worst
    assert (combined.n, combined.tract) == (30, None)
    assert f"worst of 3 tracts: {values.index(worst)}" in combined.detail


def test_the_median_is_at_hand_and_serves_what_has_no_threshold():
    (combined,) = combine(in_tracts("PA1", (5.0, 9.0, 6.0), "mmag"), RULES, Combination.MEDIAN)
    assert combined.value == 6.0
    (unruled,) = combine(in_tracts("m50", (24.0, 24.4, 24.1), "mag"), RULES)
    assert (unruled.value, unruled.detail) == (24.1, "median of 3 tracts")


def test_a_tract_that_could_not_measure_is_told():
    measured = [*in_tracts("PA1", (5.0, 9.0), "mmag"), Measurement("PA1", "r", None, "", 0, "no stars", 2)]
    (combined,) = combine(measured, RULES)
    assert combined.value == 9.0
    assert combined.detail == "worst of 2 tracts: 1; not measurable in 1"


def test_what_no_tract_could_measure_stays_unmeasured():
    (combined,) = combine(in_tracts("PA1", (None, None), "mmag"), RULES)
    assert combined.value is None
    assert "all 2 tracts" in combined.detail


def test_a_single_tract_keeps_its_own_detail():
    (combined,) = combine([Measurement("PA1", "r", 5.0, "mmag", 9, "stars with S/N > 200", 0)], RULES)
    assert combined == Measurement("PA1", "r", 5.0, "mmag", 9, "stars with S/N > 200")


@given(st.lists(st.none() | st.floats(-10, 10), min_size=1, max_size=5), st.sampled_from(["PA1", "AA1", "other"]))
def test_a_combined_value_lies_among_the_tracts_values(values, metric):
    measured = [value for value in values if value is not None]
    for how in Combination:
        (combined,) = combine(in_tracts(metric, values), RULES, how)
        assert (combined.value is None) == (not measured)
        if measured:
            assert min(measured) <= combined.value <= max(measured)


def test_metrics_come_from_the_chain_newest_run_first(release_repository):
    butler = release_repository
    by_label = {(m.metric, m.band): m for m in read_metrics(butler, "demo", skymap="sim_v1")}
    assert by_label["PA1", "r"].value == 6.5
    assert by_label["wPerp", ""].tract == 0
    assert by_label["AM3", "r"].value is None


def test_other_tracts_and_skymaps_and_missing_tables_have_no_metrics(release_repository):
    butler = release_repository
    assert read_metrics(butler, "demo", tracts=[5]) == ()
    assert read_metrics(butler, "demo", skymap="other") == ()
    assert read_metrics(butler, "demo", tables=["nobody_wrote_this"]) == ()
