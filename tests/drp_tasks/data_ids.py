"""Data IDs of visits with their records, as quanta have them, without a repository."""

from astropy.time import Time
from lsst.daf.butler import DataCoordinate, DimensionUniverse, Timespan

VISIT, DETECTOR, DAY_OBS = 2026110100003, 7, 20261101
BEGIN = Time("2026-11-02T03:00:00", scale="tai")
END = Time("2026-11-02T03:00:30", scale="tai")


def visit_detector(with_times: bool = True) -> DataCoordinate:
    universe = DimensionUniverse()
    values = {
        "instrument": "SimCam",
        "visit": VISIT,
        "detector": DETECTOR,
        "band": "r",
        "physical_filter": "r_57",
        "day_obs": DAY_OBS,
    }
    dimensions = universe.conform(["visit", "detector"])
    record = universe["visit"].RecordClass(
        instrument="SimCam",
        id=VISIT,
        name=str(VISIT),
        physical_filter="r_57",
        day_obs=DAY_OBS,
        exposure_time=30.0,
        timespan=Timespan(BEGIN, END) if with_times else None,
    )
    data_id = DataCoordinate.standardize(values, dimensions=dimensions)
    return data_id.expanded(dict.fromkeys(dimensions.elements) | {"visit": record})
