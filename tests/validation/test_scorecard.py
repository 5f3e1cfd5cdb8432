import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from planning.release import Threshold, Waiver
from resources.errors import Rejected
from validation.metrics import Measurement
from validation.rendering import markdown_table, number_text, scorecard_markdown, scorecard_table
from validation.scorecard import HOLDS, VERDICTS, Scorecard, Verdict, judge
from validation.thresholds import Standing

WAIVER = Waiver(by="A. Operator", why="known cloud on the second night")


def threshold(metric="PA1", **changes):
    return Threshold(
        **{"metric": metric, "design": 5.0, "minimum": 8.0, "unit": "mmag", "source": "LPM-17 PA1", **changes}
    )


def measured(value, metric="PA1", band="r", **changes):
    return Measurement(metric, band, value, **{"unit": "mmag", "n": 120, **changes})


def verdicts(scorecard):
    return {row.label: row.verdict for row in scorecard.rows}


def test_the_table_decides_every_case():
    assert set(VERDICTS) == set(itertools.product(Standing, [True, False]))


def test_a_waiver_turns_a_failure_into_waived_and_changes_nothing_else():
    changed = {standing for standing in Standing if VERDICTS[standing, True] is not VERDICTS[standing, False]}
    assert changed == {Standing.MISSES_MINIMUM}
    assert VERDICTS[Standing.MISSES_MINIMUM, True] is Verdict.WAIVED


@pytest.mark.parametrize(("value", "verdict"), [(4.0, Verdict.PASSED), (6.0, Verdict.WARNED), (9.0, Verdict.FAILED)])
def test_design_warns_and_minimum_fails(value, verdict):
    assert verdicts(judge([threshold()], [measured(value)], "demo")) == {"PA1 r": verdict}


def test_a_metric_nobody_measured_is_not_measurable_and_holds_if_blocking():
    scorecard = judge([threshold(bands=("g", "r"), blocking=True)], [measured(4.0)], "demo")
    assert verdicts(scorecard) == {"PA1 g": Verdict.NOT_MEASURABLE, "PA1 r": Verdict.PASSED}
    assert [row.label for row in scorecard.holding] == ["PA1 g"]
    assert scorecard.verdict is Verdict.FAILED


def test_a_metric_nobody_measured_in_any_band_has_a_row():
    scorecard = judge([threshold("AM3")], [], "demo")
    assert verdicts(scorecard) == {"AM3": Verdict.NOT_MEASURABLE}
    assert scorecard.rows[0].detail == "nobody measured it"


def test_what_the_data_cannot_tell_does_not_hold_the_release():
    too_small = measured(None, detail="the field is smaller than 200 arcmin")
    scorecard = judge([threshold(blocking=True)], [too_small, measured(1.0, band="g")], "demo")
    assert verdicts(scorecard)["PA1 r"] is Verdict.NOT_MEASURABLE
    assert scorecard.holding == ()
    assert scorecard.verdict is Verdict.WARNED


def test_a_blocking_failure_holds_until_it_is_waived():
    failing = [measured(9.0)]
    assert judge([threshold(blocking=True)], failing, "demo").verdict is Verdict.FAILED
    waived = judge([threshold(blocking=True, waiver=WAIVER)], failing, "demo")
    assert waived.verdict is Verdict.WARNED
    assert "waived by A. Operator: known cloud on the second night" in scorecard_markdown(waived)


def test_an_informative_failure_warns_only():
    assert judge([threshold()], [measured(9.0)], "demo").verdict is Verdict.WARNED


def test_a_threshold_without_bands_applies_to_each_measured_band_that_has_no_own_one():
    rules = [threshold(minimum=8.0), threshold(bands=("u",), minimum=20.0)]
    scorecard = judge(rules, [measured(12.0, band="u"), measured(12.0, band="g")], "demo")
    assert verdicts(scorecard) == {"PA1 g": Verdict.FAILED, "PA1 u": Verdict.WARNED}


def test_a_number_in_another_unit_is_not_compared():
    scorecard = judge([threshold(blocking=True)], [measured(0.004, unit="mag")], "demo")
    assert verdicts(scorecard) == {"PA1 r": Verdict.NOT_MEASURABLE}
    assert scorecard.rows[0].detail == "measured in mag, required in mmag"
    assert scorecard.rows[0].holds


def test_what_has_no_threshold_is_kept_unjudged():
    scorecard = judge([threshold()], [measured(4.0), measured(24.2, "m50", "r", unit="mag")], "demo")
    assert [m.metric for m in scorecard.unjudged] == ["m50"]


def test_a_metric_given_twice_is_rejected():
    with pytest.raises(Rejected, match="combine the tracts"):
        judge([threshold()], [measured(4.0, tract=0), measured(5.0, tract=1)], "demo")


def test_an_empty_scorecard_never_passes():
    assert judge([], [], "demo").verdict is Verdict.NOT_MEASURABLE


THRESHOLDS = st.lists(
    st.builds(
        threshold,
        metric=st.sampled_from(["PA1", "AM1", "AA1"]),
        bands=st.sampled_from([(), ("g",), ("g", "r")]),
        blocking=st.booleans(),
        waiver=st.sampled_from([None, WAIVER]),
    ),
    max_size=5,
    unique_by=lambda t: t.metric,
)
MEASUREMENTS = st.lists(
    st.builds(
        measured,
        st.none() | st.floats(-20, 20),
        metric=st.sampled_from(["PA1", "AM1", "AA1"]),
        band=st.sampled_from(["g", "r", "i"]),
        unit=st.sampled_from(["mmag", "mag"]),
    ),
    max_size=9,
    unique_by=lambda m: (m.metric, m.band),
)


@given(THRESHOLDS, MEASUREMENTS)
def test_every_threshold_and_every_measurement_is_accounted_for(thresholds, measurements):
    scorecard = judge(thresholds, measurements, "demo")
    assert {row.metric for row in scorecard.rows} == {t.metric for t in thresholds}
    told = {(row.metric, row.band) for row in scorecard.rows} | {(m.metric, m.band) for m in scorecard.unjudged}
    assert {(m.metric, m.band) for m in measurements} <= told


@given(THRESHOLDS, MEASUREMENTS)
def test_passing_needs_a_number_and_a_row_holds_only_if_blocking_and_not_waived(thresholds, measurements):
    scorecard = judge(thresholds, measurements, "demo")
    for row in scorecard.rows:
        assert row.value is not None or row.verdict is Verdict.NOT_MEASURABLE
        assert row.holds == (row.blocking and row.waiver is None and row.standing in HOLDS)
    assert (scorecard.verdict is Verdict.FAILED) == any(row.holds for row in scorecard.rows)


@given(THRESHOLDS, MEASUREMENTS)
def test_a_scorecard_survives_json(thresholds, measurements):
    scorecard = judge(thresholds, measurements, "demo")
    assert Scorecard.from_json(scorecard.to_json()) == scorecard


def test_a_file_that_is_no_scorecard_is_rejected_with_its_name():
    with pytest.raises(Rejected, match=r"old\.json: rows: is not a scorecard"):
        Scorecard.from_json('{"scope": "demo"}', "old.json")


def test_the_terminal_shows_values_limits_verdicts_and_the_summary():
    scorecard = judge([threshold()], [measured(6.04)], "demo")
    console = Console(file=io.StringIO(), width=120)
    console.print(scorecard_table(scorecard))
    shown = console.file.getvalue()
    for text in ("Scorecard of demo", "6.04 mmag", "≤ 5", "≤ 8", "! warned", "warned: 1 warned"):
        assert text in shown


def test_bands_that_nobody_could_measure_share_a_line_in_the_terminal():
    unmeasured = [measured(None, band=band, detail="too few stars") for band in "irg"]
    scorecard = judge([threshold()], [*unmeasured, measured(4.0, band="u")], "demo")
    console = Console(file=io.StringIO(), width=120)
    console.print(scorecard_table(scorecard))
    lines = [line for line in console.file.getvalue().splitlines() if "PA1" in line]
    assert len(lines) == 2
    assert "g r i" in lines[1]
    assert len(scorecard.rows) == 4


def test_square_brackets_are_not_taken_for_markup():
    metric, unit, detail = "depth[bright]", "[mag]", "mag in [/17, 21]"
    scorecard = judge([threshold(metric, unit=unit)], [measured(6.0, metric, unit=unit, detail=detail)], "demo")
    console = Console(file=io.StringIO(), width=160)
    console.print(scorecard_table(scorecard))
    for text in (metric, unit, detail):
        assert text in console.file.getvalue()


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_no_cell_can_break_a_markdown_table(rows):
    text = markdown_table(("a", "b"), rows)
    assert len(text.split("\n")) == len(rows) + 2
    bare = text.replace("\\\\", "").replace("\\|", "")
    assert all(line.count("|") == 3 for line in bare.split("\n"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(6.0412, "6.04"), (1234.5, "1234"), (2.3e-7, "2.3e-07"), (None, "–"), (0.0, "0"), (-0.004, "-0.004")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number_text(value) == text
