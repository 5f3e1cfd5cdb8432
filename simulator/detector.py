"""What a detector does to light: sensitivity, dark current, bias, cosmic rays, saturation and bleed, read-out.

Belongs here: the true, noiseless properties of each detector, and the steps from expected electrons to adu.
Doesn't: the light itself (`simulator.observe`), or measuring these properties (`simulator.calibrations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from drp_tasks.camera import (
    BIAS_ADU,
    DETECTORS,
    GAIN,
    OVERSCAN_PX,
    READ_NOISE_ELECTRON,
    SATURATION_ELECTRON,
    focal_plane_width_px,
)
from simulator.survey import Stream, Survey

DARK_CURRENT = 0.03
HOT_PIXEL_CURRENT = 30.0
"""Electrons a second in a pixel, and in a hot one."""

HOT_PIXEL_SHARE = 3e-5
PIXEL_RESPONSE_SCATTER = 0.01
VIGNETTING = 0.1
BAD_COLUMN_SENSITIVITY = 0.2
COSMIC_RAYS_PER_PIXEL = 6 / 512**2


@dataclass(frozen=True, eq=False)
class DetectorTruth:
    """True properties of a detector; each array has the shape of its light-sensitive pixels.

    Parameters
    ----------
    bias_adu
        Pattern that the electronics add on top of the constant level.
    dark_electron_s
        Dark current.
    sensitivity
        Electrons detected for each that would be at the centre of the camera.
    """

    bias_adu: np.ndarray
    dark_electron_s: np.ndarray
    sensitivity: np.ndarray


@lru_cache(maxsize=len(DETECTORS))
def detector_truth(survey: Survey, detector_id: int) -> DetectorTruth:
    """Draw a detector's properties: the same whenever it is asked for."""
    rng = survey.generator(Stream.DETECTOR, detector_id)
    size = survey.detector_px
    y, x = np.mgrid[:size, :size]
    bias = 3.0 * np.sin(x / 37.0) + rng.normal(0.0, 0.5, (size, size))
    dark = np.full((size, size), DARK_CURRENT)
    dark[rng.uniform(size=(size, size)) < HOT_PIXEL_SHARE] = HOT_PIXEL_CURRENT
    centre_x, centre_y = DETECTORS[detector_id].focal_plane_centre(size)
    width = focal_plane_width_px(size)
    radius2 = ((x - size / 2 + centre_x) / width) ** 2 + ((y - size / 2 + centre_y) / width) ** 2
    sensitivity = (1.0 - VIGNETTING * radius2) * rng.normal(1.0, PIXEL_RESPONSE_SCATTER, (size, size))
    sensitivity[:, int(rng.uniform(0.1, 0.9) * size)] = BAD_COLUMN_SENSITIVITY
    return DetectorTruth(bias, dark, sensitivity)


@lru_cache(maxsize=2)
def camera_sensitivity(survey: Survey) -> float:
    """Median over detectors of the median sensitivity: what the flats are normalised to, and zero points refer to."""
    medians = [np.median(detector_truth(survey, detector.id).sensitivity) for detector in survey.detectors]
    return float(np.median(medians))


def expose(expected_light: np.ndarray, seconds: float, truth: DetectorTruth, rng: np.random.Generator) -> np.ndarray:
    """Electrons that an exposure gathers, photon noise and dark current included.

    Parameters
    ----------
    expected_light
        Expected electrons in each pixel where the sensitivity is one.
    seconds
        Dark time.
    truth
        The detector.
    rng
        Source of noise.

    Returns
    -------
    electrons : `numpy.ndarray` of `float`
        Shape of ``expected_light``.
    """
    return rng.poisson(expected_light * truth.sensitivity + truth.dark_electron_s * seconds).astype(np.float64)


def add_cosmic_rays(electrons: np.ndarray, rng: np.random.Generator) -> None:
    """Add straight tracks of charge in random directions, in place."""
    height, width = electrons.shape
    for _ in range(rng.poisson(COSMIC_RAYS_PER_PIXEL * electrons.size)):
        steps = np.arange(rng.integers(3, 25))
        angle = rng.uniform(0.0, 2 * np.pi)
        x = np.floor(rng.uniform(0, width) + steps * np.cos(angle)).astype(int)
        y = np.floor(rng.uniform(0, height) + steps * np.sin(angle)).astype(int)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        electrons[y[inside], x[inside]] += rng.uniform(400.0, 4000.0)


def bleed(electrons: np.ndarray, full_well: float = SATURATION_ELECTRON) -> None:
    """Spill what is above the full well up and down its column, in place; what reaches the edge is lost."""
    for column in np.unique(np.nonzero(electrons > full_well)[1]):
        electrons[:, column] = _bled_column(electrons[:, column], full_well)


def _bled_column(column: np.ndarray, full_well: float) -> np.ndarray:
    """Conserve the charge of a column: each saturated run grows at both ends, in turn, until it holds its excess."""
    over = np.flatnonzero(column > full_well)
    filled = np.minimum(column, full_well)
    for run in np.split(over, np.flatnonzero(np.diff(over) > 1) + 1):
        excess = float((column[run] - full_well).sum())
        below, above = int(run[0]) - 1, int(run[-1]) + 1
        while excess > 0 and (below >= 0 or above < len(column)):
            for row in (below, above):
                if 0 <= row < len(column):
                    moved = min(full_well - filled[row], excess)
                    filled[row] += moved
                    excess -= moved
            below, above = below - 1, above + 1
    return filled


def read_out(electrons: np.ndarray, truth: DetectorTruth, rng: np.random.Generator) -> np.ndarray:
    """Turn charge into numbers, with bias, read noise and overscan.

    Returns
    -------
    adu : `numpy.ndarray` of `numpy.uint16`
        Shape (height, width + overscan).
    """
    height, _ = electrons.shape
    noise_adu = READ_NOISE_ELECTRON / GAIN
    image = electrons / GAIN + truth.bias_adu + BIAS_ADU + rng.normal(0.0, noise_adu, electrons.shape)
    overscan = BIAS_ADU + rng.normal(0.0, noise_adu, (height, OVERSCAN_PX))
    return np.clip(np.rint(np.hstack([image, overscan])), 0, 65535).astype(np.uint16)
