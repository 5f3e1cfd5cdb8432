"""The instrument as the Butler and ``pipetask`` know it.

Belongs here: registration of SimCam's dimension records, and which formatter and reader its raws have.
Doesn't: the camera's constants (`drp_tasks.camera`), or reading raws (`drp_tasks.raw_formatter`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsst.pipe.base import Instrument

from drp_tasks.camera import DETECTORS, FILTERS, INSTRUMENT

if TYPE_CHECKING:
    from lsst.daf.butler import DataId, Registry
    from lsst.resources import ResourcePathExpression

    from drp_tasks.raw_formatter import RawObservation, SimCamRawFormatter

ONE_TO_ONE_VISIT_SYSTEM = 0
"""Id of the only visit system: each science exposure is a visit."""


class SimCam(Instrument):
    """One raft of nine detectors behind six filters."""

    raw_definition = ("raw", ("instrument", "exposure", "detector"), "ImageV2")

    @classmethod
    def getName(cls) -> str:
        """Name of the instrument in data IDs."""
        return INSTRUMENT

    def getRawFormatter(self, dataId: DataId) -> type[SimCamRawFormatter]:
        """Formatter that reads raws, the same for all of them."""
        from drp_tasks.raw_formatter import SimCamRawFormatter

        return SimCamRawFormatter

    def read_observation(self, raw: ResourcePathExpression) -> RawObservation:
        """What the header of a raw tells: see `drp_tasks.raw_formatter.read_observation`."""
        from drp_tasks.raw_formatter import read_observation

        return read_observation(raw)

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the instrument, its detectors, filters and visit system; twice does no more than once.

        Parameters
        ----------
        registry
            Registry of the repository to write to.
        update
            Whether records that are there and differ are overwritten.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            If a record is there, differs, and ``update`` is false.
        """
        name = self.getName()
        with registry.transaction():
            registry.syncDimensionData(
                "instrument",
                {
                    "name": name,
                    "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
                    "detector_max": len(DETECTORS),
                    "visit_max": 2**45,
                    "exposure_max": 2**45,
                    "visit_system": ONE_TO_ONE_VISIT_SYSTEM,
                },
                update=update,
            )
            for detector in DETECTORS:
                registry.syncDimensionData(
                    "detector",
                    {
                        "instrument": name,
                        "id": detector.id,
                        "full_name": detector.full_name,
                        "name_in_raft": detector.slot,
                        "raft": detector.raft,
                        "purpose": "SCIENCE",
                    },
                    update=update,
                )
            for physical_filter, band in FILTERS.items():
                registry.syncDimensionData(
                    "physical_filter", {"instrument": name, "name": physical_filter, "band": band}, update=update
                )
            registry.syncDimensionData(
                "visit_system", {"instrument": name, "id": ONE_TO_ONE_VISIT_SYSTEM, "name": "one-to-one"}, update=update
            )
