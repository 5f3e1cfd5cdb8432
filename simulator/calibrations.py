"""Calibrations measured as a telescope would: exposures are simulated, reduced and combined.

Units: bias in adu (overscan subtracted), dark in adu a second, flats relative to the camera's median, defects 1 where a
pixel is unusable.

Belongs here: calibration exposures and their combination.
Doesn't: the detectors' true properties (`simulator.detector`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drp_tasks.camera import GAIN, PHYSICAL_FILTERS
from simulator.detector import DetectorTruth, detector_truth, expose, read_out
from simulator.survey import Stream, Survey

DARK_EXPOSURE_S = 60.0
FLAT_ELECTRON = 4e4

DEFECT_SENSITIVITY = 0.5
"""A pixel that responds less than this share of the typical one is a defect."""

DEFECT_CURRENT = 5.0
"""A pixel whose dark current is higher than this, in electrons a second, is a defect."""


@dataclass(frozen=True, eq=False)
class DetectorCalibrations:
    """Combined calibrations of one detector, flats not yet normalised over the camera.

    Parameters
    ----------
    bias_adu, dark_adu_s
        Shape (size, size).
    flat_adu
        Combined flat exposure of each physical filter, same shape.
    """

    bias_adu: np.ndarray
    dark_adu_s: np.ndarray
    flat_adu: Mapping[str, np.ndarray]

    def save(self, path: Path) -> None:
        """Write to a file at once or not at all."""
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as stream:
            arrays: dict[str, Any] = {"bias": self.bias_adu, "dark": self.dark_adu_s, **self.flat_adu}
            np.savez(stream, **arrays)
        unfinished.rename(path)

    @classmethod
    def load(cls, path: Path) -> DetectorCalibrations:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            flats = {name: arrays[name] for name in arrays.files if name not in {"bias", "dark"}}
            return cls(arrays["bias"], arrays["dark"], flats)

    def defects(self, flat: Mapping[str, np.ndarray]) -> np.ndarray:
        """Mask of unusable pixels: dead in any filter, or hot.

        Parameters
        ----------
        flat
            Normalised flats of this detector.

        Returns
        -------
        defects : `numpy.ndarray` of `numpy.uint8`
            1 where a pixel is unusable.
        """
        dead = np.any([image < DEFECT_SENSITIVITY for image in flat.values()], axis=0)
        return (dead | (self.dark_adu_s * GAIN > DEFECT_CURRENT)).astype(np.uint8)


def calibrate_detector(survey: Survey, detector_id: int) -> DetectorCalibrations:
    """Take and combine the calibration exposures of one detector."""
    truth = detector_truth(survey, detector_id)
    rng = survey.generator(Stream.CALIBRATION, detector_id)
    nothing = np.zeros((survey.detector_px, survey.detector_px))
    bias = _combine(_frame(nothing, 0.0, truth, rng) for _ in range(survey.bias_frames))
    dark = _combine(_frame(nothing, DARK_EXPOSURE_S, truth, rng) for _ in range(survey.dark_frames)) - bias
    lamp = np.full_like(nothing, FLAT_ELECTRON)
    flats = {
        PHYSICAL_FILTERS[band]: _combine(_frame(lamp, 0.0, truth, rng) for _ in range(survey.flat_frames)) - bias
        for band in survey.bands
    }
    return DetectorCalibrations(bias.astype(np.float32), (dark / DARK_EXPOSURE_S).astype(np.float32), flats)


def normalise_flats(calibrations: Mapping[int, DetectorCalibrations]) -> dict[int, dict[str, np.ndarray]]:
    """Divide flats by the median over detectors of their medians, so that one scale holds for the whole camera.

    Parameters
    ----------
    calibrations
        Combined calibrations by detector id.

    Returns
    -------
    flats : `dict`
        Flats (float32) by detector id, then by physical filter.
    """
    filters = list(next(iter(calibrations.values())).flat_adu)
    scale = {
        name: np.median([np.median(detector.flat_adu[name]) for detector in calibrations.values()]) for name in filters
    }
    return {
        number: {name: (detector.flat_adu[name] / scale[name]).astype(np.float32) for name in filters}
        for number, detector in calibrations.items()
    }


def _frame(light: np.ndarray, seconds: float, truth: DetectorTruth, rng: np.random.Generator) -> np.ndarray:
    """One exposure to a lamp, overscan subtracted and trimmed, in adu."""
    adu = read_out(expose(light, seconds, truth, rng), truth, rng).astype(np.float64)
    size = light.shape[1]
    return adu[:, :size] - np.median(adu[:, size:], axis=1, keepdims=True)


def _combine(frames: Iterable[np.ndarray]) -> np.ndarray:
    return np.median(np.array(list(frames)), axis=0)
