"""Identifiers of rows: unique over a survey, the same whenever a quantum runs again, and within 63 bits.

Belongs here: how the numbers of sources are built from where they were found.
Doesn't: identifiers of things on the sky, which tracts number (`drp_tasks.measure_objects`, `drp_tasks.isolated_star`).
"""

from __future__ import annotations

from datetime import date

import numpy as np

SEQUENCE_PER_DAY = 100_000
_FIRST_DAY = date(2010, 1, 1).toordinal()
_SEQUENCE_BITS, _DETECTOR_BITS, _ROW_BITS = 17, 8, 22


def source_ids(visit: int, detector: int, n: int) -> np.ndarray:
    """Return ``n`` identifiers of the sources of one detector of one visit, as int64.

    From the high bits: days since 2010, the exposure of the day, the detector, the row.

    Parameters
    ----------
    visit
        Identifier of the form YYYYMMDD followed by five digits.
    detector
        0 to 255.
    n
        Number of sources.

    Raises
    ------
    ValueError
        If the visit's first eight digits are no date since 2010, or another part takes more than its bits.
    """
    day_obs, sequence = divmod(visit, SEQUENCE_PER_DAY)
    day = date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100).toordinal() - _FIRST_DAY
    if not 0 <= day < 1 << 16 or not 0 <= detector < 1 << _DETECTOR_BITS or n > 1 << _ROW_BITS:
        raise ValueError(f"visit {visit}, detector {detector} with {n} sources can't be numbered")
    first = ((day << _SEQUENCE_BITS | sequence) << _DETECTOR_BITS | detector) << _ROW_BITS
    return first + np.arange(n, dtype=np.int64)
