"""A visit's detector is found where it is, and only there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drp_tasks.visit_detector_index import find_visit_detectors

keys = st.tuples(st.integers(2026110100001, 2026110100004), st.integers(0, 3))


@given(st.lists(keys, max_size=20), st.lists(keys, unique=True, max_size=10))
def test_each_detector_of_a_visit_finds_its_row_or_none(sought, known):
    index = find_visit_detectors(
        *np.array(sought, np.int64).reshape(-1, 2).T, *np.array(known, np.int64).reshape(-1, 2).T
    )
    assert index.tolist() == [known.index(key) if key in known else -1 for key in sought]
