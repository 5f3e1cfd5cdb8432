import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.release import Threshold
from resources.errors import Rejected
from validation.thresholds import Standing, badness, check_threshold, check_thresholds, limit_text, meets, standing_of

NUMBERS = st.floats(-1e6, 1e6)
POSITIVE = st.floats(0, 1e6)


def threshold(**changes):
    return Threshold(**{"metric": "PA1", "design": 5.0, "minimum": 8.0, "source": "LPM-17 PA1", **changes})


@st.composite
def consistent_thresholds(draw):
    kind = draw(st.sampled_from(["at_most", "absolute_at_most", "at_least", "between"]))
    low, high = sorted((draw(POSITIVE), draw(POSITIVE)))
    if kind == "between":
        return threshold(kind=kind, design=None, minimum=(low, high))
    design, minimum = (high, low) if kind == "at_least" else (low, high)
    return threshold(kind=kind, design=draw(st.sampled_from([None, design])), minimum=minimum)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("at_most", 5.0, Standing.MEETS_DESIGN),
        ("at_most", -100.0, Standing.MEETS_DESIGN),
        ("at_most", 8.0, Standing.MEETS_MINIMUM),
        ("at_most", 8.001, Standing.MISSES_MINIMUM),
        ("absolute_at_most", -5.0, Standing.MEETS_DESIGN),
        ("absolute_at_most", -7.0, Standing.MEETS_MINIMUM),
        ("absolute_at_most", -8.5, Standing.MISSES_MINIMUM),
    ],
)
def test_upper_limits_include_themselves_and_warn_between_design_and_minimum(kind, value, expected):
    assert standing_of(threshold(kind=kind), value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.95, Standing.MEETS_DESIGN), (0.9, Standing.MEETS_MINIMUM), (0.89, Standing.MISSES_MINIMUM)],
)
def test_completeness_has_to_be_at_least_its_limit(value, expected):
    assert standing_of(threshold(kind="at_least", design=0.95, minimum=0.9), value) is expected


@pytest.mark.parametrize(("value", "expected"), [(1.0, True), (0.9, True), (1.31, False), (0.89, False)])
def test_a_width_has_to_lie_between_two_limits(value, expected):
    assert meets("between", value, (0.9, 1.3)) is expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@given(limits=consistent_thresholds())
def test_what_is_no_number_never_passes_any_threshold(value, limits):
    assert standing_of(limits, value) is Standing.NOT_MEASURABLE


@given(limits=consistent_thresholds(), values=st.tuples(NUMBERS, NUMBERS))
def test_a_worse_value_never_stands_better(limits, values):
    order = [Standing.MEETS_DESIGN, Standing.MEETS_MINIMUM, Standing.MISSES_MINIMUM]
    better, worse = sorted(values, key=lambda value: badness(limits, value))
    assert order.index(standing_of(limits, better)) <= order.index(standing_of(limits, worse))


@given(limits=consistent_thresholds())
def test_consistent_thresholds_are_accepted_and_their_design_meets_their_minimum(limits):
    check_threshold(limits)
    if limits.design is not None:
        assert standing_of(limits, limits.design) is Standing.MEETS_DESIGN


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"design": 9.0}, "design value misses the minimum"),
        ({"kind": "between", "design": None}, "low, high"),
        ({"kind": "between", "design": None, "minimum": (2.0, 1.0)}, "low, high"),
        ({"kind": "between", "minimum": (1.0, 2.0)}, "no design value"),
        ({"minimum": (1.0, 2.0)}, "one minimum"),
        ({"minimum": math.nan}, "finite"),
    ],
)
def test_a_threshold_that_contradicts_itself_is_rejected_with_its_place(changes, reason):
    with pytest.raises(Rejected, match=reason) as caught:
        check_thresholds([threshold(**changes)], "demo.yaml")
    assert str(caught.value).startswith("demo.yaml: validation.thresholds[0] (PA1)")


def test_two_thresholds_for_one_band_are_rejected():
    with pytest.raises(Rejected, match="PA1 r has two thresholds"):
        check_thresholds([threshold(bands=("g", "r")), threshold(bands=("r",))])


@pytest.mark.parametrize(
    ("kind", "limit", "text"),
    [
        ("at_most", 8.0, "≤ 8"),
        ("at_least", 0.9, "≥ 0.9"),
        ("absolute_at_most", 0.01, "± 0.01"),
        ("between", (0.9, 1.3), "0.9 … 1.3"),
        ("at_most", None, ""),
    ],
)
def test_limits_read_as_people_write_them(kind, limit, text):
    assert limit_text(kind, limit) == text
