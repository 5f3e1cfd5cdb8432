"""Identifiers: unique, positive, the same every time."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drp_tasks.identifiers import source_ids

VISITS = st.builds(
    lambda day, sequence: int(day.strftime("%Y%m%d")) * 100_000 + sequence,
    st.dates(min_value=date(2010, 1, 1), max_value=date(2100, 1, 1)),
    st.integers(0, 99_999),
)


@given(VISITS, st.integers(0, 255), VISITS, st.integers(0, 255))
def test_sources_of_different_detectors_never_share_an_identifier(visit, detector, other_visit, other_detector):
    here, there = source_ids(visit, detector, 3), source_ids(other_visit, other_detector, 3)
    assert here.dtype == np.int64
    assert (here > 0).all() or visit < 20100102 * 100_000
    same = (visit, detector) == (other_visit, other_detector)
    assert (len(np.intersect1d(here, there)) > 0) == same


def test_rows_count_up():
    assert list(np.diff(source_ids(2026110100001, 4, 5))) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("visit", "detector", "n"),
    [(2026110100001, 256, 1), (2026110100001, 0, 2**22 + 1), (1999010100001, 0, 1), (7, 0, 1)],
)
def test_what_does_not_fit_is_refused(visit, detector, n):
    with pytest.raises(ValueError):
        source_ids(visit, detector, n)
