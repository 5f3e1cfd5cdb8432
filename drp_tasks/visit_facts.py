"""What the dimension records know of one detector of one visit, as a value that needs no Butler.

Belongs here: that value, and reading it from an expanded data ID.
Doesn't: anything measured on the image (`drp_tasks.visit_summary`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lsst.daf.butler import DataCoordinate


@dataclass(frozen=True, slots=True)
class VisitFacts:
    """Identity, band and time of one detector of one visit.

    Parameters
    ----------
    visit, detector, band, physical_filter, day_obs
        Values of the data ID.
    mjd_mid
        Middle of the exposure, MJD (TAI).
    exposure_s
        Exposure time.
    """

    visit: int
    detector: int
    band: str
    physical_filter: str
    day_obs: int
    mjd_mid: float
    exposure_s: float


def facts_of(data_id: DataCoordinate) -> VisitFacts:
    """Return what a data ID with instrument, visit and detector tells; it has to be expanded with its records.

    Raises
    ------
    ValueError
        If the visit's record is missing, or has no times.
    """
    record = data_id.records["visit"]
    if record is None or record.timespan is None:
        raise ValueError(f"no visit record with a timespan for {data_id}")
    begin, end = record.timespan.begin.tai.mjd, record.timespan.end.tai.mjd
    return VisitFacts(
        visit=int(data_id["visit"]),
        detector=int(data_id["detector"]),
        band=str(data_id["band"]),
        physical_filter=str(data_id["physical_filter"]),
        day_obs=int(data_id["day_obs"]),
        mjd_mid=float(begin + end) / 2,
        exposure_s=float(record.exposure_time),
    )
