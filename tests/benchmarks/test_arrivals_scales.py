"""How much arrives in the benchmark of arrivals, and what its figures are called."""

from benchmarks.arrivals import NIGHT, SHORT


def test_a_nights_figures_take_no_short_runs_place():
    assert (SHORT.report, NIGHT.report) == ("arrivals", "arrivals-night")
