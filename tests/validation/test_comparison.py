import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from planning.release import Threshold
from validation.comparison import Change, compare, comparison_markdown, comparison_table
from validation.metrics import Measurement
from validation.scorecard import judge

RULES = [
    Threshold(metric="PA1", design=5.0, minimum=8.0, unit="mmag", source="LPM-17 PA1"),
    Threshold(metric="AA1", kind="absolute_at_most", minimum=5.0, unit="mas", source="LPM-17 AA1"),
    Threshold(metric="completeness", kind="at_least", minimum=0.9, source="science 15"),
]


def scorecard(pa1, aa1=1.0, completeness=0.95, scope="before"):
    measurements = [
        Measurement("PA1", "r", pa1, "mmag"),
        Measurement("AA1", "", aa1, "mas"),
        Measurement("completeness", "", completeness),
    ]
    return judge(RULES, measurements, scope)


def changes(comparison):
    return {row.either.label: row.change for row in comparison.rows}


def test_better_and_worse_follow_each_thresholds_own_direction():
    comparison = compare(scorecard(7.0, -4.0, 0.95), scorecard(6.0, 4.5, 0.97, "after"))
    assert changes(comparison) == {"PA1 r": Change.BETTER, "AA1": Change.WORSE, "completeness": Change.BETTER}


def test_the_sign_of_an_offset_is_neither_better_nor_worse():
    assert changes(compare(scorecard(5.0, -4.0), scorecard(5.0, 4.0)))["AA1"] is Change.SAME


def test_a_change_of_verdict_is_found_and_said():
    comparison = compare(scorecard(9.0), scorecard(4.0, scope="after"))
    assert [row.either.label for row in comparison.changed_verdicts] == ["PA1 r"]
    assert comparison.rows[0].delta == -5.0
    assert "1 better, 2 same; 1 verdict changed; warned → passed" in comparison.summary
    assert "✘ failed → ✔ passed" in comparison_markdown(comparison)


def test_a_row_on_one_side_only_appeared_or_vanished():
    one_row_less = judge(RULES[1:], [Measurement("AA1", "", 1.0, "mas")], "before")
    comparison = compare(one_row_less, scorecard(4.0))
    assert changes(comparison) == {"PA1 r": Change.APPEARED, "AA1": Change.SAME, "completeness": Change.APPEARED}
    assert changes(compare(scorecard(4.0), one_row_less))["PA1 r"] is Change.VANISHED


def test_values_in_different_units_have_no_difference():
    free = [Threshold(metric="depth", minimum=30.0, source="none")]
    before = judge(free, [Measurement("depth", "r", 24.0, "mag")], "before")
    after = judge(free, [Measurement("depth", "r", 24.0, "mmag")], "after")
    assert compare(before, after).rows[0].delta is None


VALUES = st.none() | st.floats(0, 100)


@given(VALUES, VALUES)
def test_exchanging_the_sides_exchanges_the_changes(before, after):
    opposite = {
        Change.BETTER: Change.WORSE,
        Change.WORSE: Change.BETTER,
        Change.APPEARED: Change.VANISHED,
        Change.VANISHED: Change.APPEARED,
        Change.SAME: Change.SAME,
    }
    there = compare(scorecard(before), scorecard(after)).rows[0]
    back = compare(scorecard(after), scorecard(before)).rows[0]
    assert back.change is opposite[there.change]
    assert there.delta == (None if back.delta is None else pytest.approx(-back.delta))


def test_the_terminal_shows_both_values_and_the_difference():
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table(compare(scorecard(9.0), scorecard(4.0, scope="after"))))
    shown = console.file.getvalue()
    for text in ("before → after", "9 mmag", "4 mmag", "-5", "better", "failed → ✔ passed"):
        assert text in shown
