"""A metric row says what was measured, and never claims what was not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drp_tasks.metrics import Metric, metrics_from_table, metrics_to_table

measured = st.builds(
    Metric,
    metric=st.sampled_from(["PA1", "AM1", "wPerp"]),
    band=st.sampled_from(["", "g", "r"]),
    value=st.floats(allow_nan=False, allow_infinity=False),
    unit=st.sampled_from(["", "mmag", "mas", "%"]),
    n=st.integers(0, 2**40),
    detail=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
)


@given(st.lists(measured, max_size=5))
def test_metrics_survive_their_table(metrics):
    assert metrics_from_table(metrics_to_table(metrics)) == metrics


def test_an_unmeasurable_metric_survives_its_table_with_its_reason():
    (row,) = metrics_from_table(
        metrics_to_table([Metric.unmeasurable("AM3", "mas", "no pairs at 200 arcmin", band="r")])
    )
    assert (row.metric, row.band, row.measurable, row.detail) == ("AM3", "r", False, "no pairs at 200 arcmin")
    assert math.isnan(row.value)


def test_metrics_survive_parquet(tmp_path):
    from lsst.daf.butler.formatters.parquet import arrow_to_astropy, astropy_to_arrow

    metrics = [Metric("PA1", "g", 4.2, "mmag", 31), Metric.unmeasurable("AM3", "mas", "the field is too small")]
    table = arrow_to_astropy(astropy_to_arrow(metrics_to_table(metrics)))
    assert metrics_from_table(table)[0] == metrics[0]
    assert not metrics_from_table(table)[1].measurable


def test_a_measurable_metric_needs_a_value():
    with pytest.raises(ValueError, match="PA1 g: a measurable metric needs a finite value"):
        Metric("PA1", "g", math.nan, "mmag", 0)


@pytest.mark.parametrize(("value", "detail"), [(3.0, "too few"), (math.nan, "")])
def test_an_unmeasurable_metric_has_no_value_and_a_reason(value, detail):
    with pytest.raises(ValueError, match="says why"):
        Metric("AM2", "r", value, "mas", 0, measurable=False, detail=detail)


def test_a_table_that_lacks_a_column_is_refused():
    table = metrics_to_table([])
    table.remove_column("unit")
    with pytest.raises(ValueError, match="it lacks unit"):
        metrics_from_table(table)
