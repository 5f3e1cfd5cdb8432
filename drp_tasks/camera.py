"""The camera's constants: detectors and where they sit, filters, gain, noise, saturation, nominal zero points.

Belongs here: facts that hold for every raw of SimCam, as values, and the geometry of its focal plane.
Doesn't: what differs from exposure to exposure (the raw's header tells), or what calibrations measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

INSTRUMENT = "SimCam"
"""Name of the instrument in data IDs and headers."""

PIXEL_SCALE_ARCSEC = 0.2
"""Size of a pixel on the sky."""

GAP_PX = 20
"""Width of the gap between neighbouring detectors, in pixels."""

GAIN = 1.6
"""Electrons for each adu."""

READ_NOISE_ELECTRON = 9.0
"""Standard deviation of one read-out of one pixel, in electrons."""

SATURATION_ELECTRON = 9e4
"""Charge that a pixel holds before it bleeds along its column, in electrons."""

BIAS_ADU = 1000.0
"""Mean level that the electronics add, in adu; the overscan measures it row by row."""

OVERSCAN_PX = 16
"""Columns of overscan, to the right of the light-sensitive ones."""

RAFT = "R22"
RAFT_WIDTH = 3
"""Detectors along one side of the raft."""

FILTERS = MappingProxyType({"u_24": "u", "g_6": "g", "r_57": "r", "i_39": "i", "z_20": "z", "y_10": "y"})
"""Band of each physical filter, from blue to red."""

BANDS = tuple(FILTERS.values())

PHYSICAL_FILTERS = MappingProxyType({band: name for name, band in FILTERS.items()})
"""Physical filter of each band."""

NOMINAL_EXPOSURE_S = 30.0
"""Exposure time for which the nominal zero points hold."""

NOMINAL_ZERO_POINTS = MappingProxyType({"u": 30.6, "g": 32.0, "r": 31.8, "i": 31.5, "z": 31.2, "y": 30.4})
"""AB magnitude that gives one electron in a nominal exposure through a clear sky, for each band."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector of the raft.

    Parameters
    ----------
    id
        Number in data IDs.
    raft, slot
        Names of the raft and of the place in it, such as ``"R22"`` and ``"S01"``.
    column, row
        Place in the raft, counted from the centre: -1, 0 or 1.
    """

    id: int
    raft: str
    slot: str
    column: int
    row: int

    @property
    def full_name(self) -> str:
        """Name that is unique in the camera, such as ``"R22_S01"``."""
        return f"{self.raft}_{self.slot}"

    def focal_plane_centre(self, size_px: int) -> tuple[float, float]:
        """Where the detector's centre lies, in pixels from the camera's centre.

        Parameters
        ----------
        size_px
            Side of the (square) detector in pixels.

        Returns
        -------
        x, y : `float`
            Offset along the focal plane's axes, which are the pixel axes of every detector.
        """
        pitch = size_px + GAP_PX
        return self.column * pitch, self.row * pitch


DETECTORS = tuple(
    Detector(RAFT_WIDTH * row + column, RAFT, f"S{row}{column}", column - RAFT_WIDTH // 2, row - RAFT_WIDTH // 2)
    for row in range(RAFT_WIDTH)
    for column in range(RAFT_WIDTH)
)
"""All detectors, in the order of their ids."""

DETECTORS_BY_NAME = MappingProxyType({detector.full_name: detector for detector in DETECTORS})


def focal_plane_width_px(size_px: int) -> int:
    """Width of the whole focal plane in pixels, gaps included, for detectors of ``size_px`` pixels a side."""
    return RAFT_WIDTH * size_px + (RAFT_WIDTH - 1) * GAP_PX
