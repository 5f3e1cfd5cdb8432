"""Rows of a table found by visit and detector: the key that sources, summaries and calibrations share.

Belongs here: that look-up, on arrays. Doesn't: the tables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

type Integers = NDArray[np.int64]


def find_visit_detectors(
    visit: ArrayLike, detector: ArrayLike, in_visit: ArrayLike, in_detector: ArrayLike
) -> Integers:
    """Find for each (visit, detector) its row among others.

    Parameters
    ----------
    visit, detector
        What is looked for, shape (n,).
    in_visit, in_detector
        Where, shape (m,), each pair once; m may be 0.

    Returns
    -------
    index
        Row among the m, −1 where it is not there, shape (n,).
    """
    sought = np.stack([np.asarray(visit, np.int64), np.asarray(detector, np.int64)], axis=-1)
    known = np.stack([np.asarray(in_visit, np.int64), np.asarray(in_detector, np.int64)], axis=-1)
    _, key = np.unique(np.concatenate([known, sought]), axis=0, return_inverse=True)
    row_of_key = np.full(int(key.max(initial=-1)) + 1, -1, np.int64)
    row_of_key[key[: len(known)]] = np.arange(len(known))
    return np.asarray(row_of_key[key[len(known) :]])
