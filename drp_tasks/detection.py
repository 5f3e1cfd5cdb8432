"""Finding sources on a map of signal to noise.

Belongs here: the filter that makes such a map, and the search in it.
Doesn't: measuring what was found (`drp_tasks.photometry`), merging over bands (`drp_tasks.detect_objects`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from scipy.signal import fftconvolve

FWHM_PER_SIGMA = 2.3548
LEAST_PIXEL_STACK = 300_000  # the default of sep, for its other users in the process


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found, in no promised order: arrays (n,) in pixels of the map, 0-based.

    Parameters
    ----------
    x, y
        Barycentre of the footprint's signal to noise.
    peak_x, peak_y
        Pixel of the highest signal to noise.
    significance
        The highest signal to noise.
    area
        Pixels in the footprint.
    segmentation
        Map (ny, nx) of footprints: 0 for none, i + 1 for detection i.
    """

    x: np.ndarray
    y: np.ndarray
    peak_x: np.ndarray
    peak_y: np.ndarray
    significance: np.ndarray
    area: np.ndarray
    segmentation: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def gaussian_kernel(fwhm_px: float) -> np.ndarray:
    """Return a Gaussian of the given full width at half maximum, normalised to a sum of one, on an odd square."""
    reach = max(int(2.5 * fwhm_px), 1)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (fwhm_px / FWHM_PER_SIGMA)) ** 2)
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype(np.float32)


def signal_to_noise(image: np.ndarray, variance: np.ndarray, bad: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return at each pixel the significance of a point source there: the matched filter, with bad pixels left out.

    Parameters
    ----------
    image, variance, bad
        Background-subtracted pixels, their variance, where they are unusable; (ny, nx).
    kernel
        Shape of a point source on an odd square, whatever its sum.

    Returns
    -------
    numpy.ndarray
        Float32 (ny, nx); zero where bad.
    """
    weight = np.where(bad, np.float32(0), np.float32(1) / np.where(bad, np.float32(1), variance)).astype(np.float32)
    mirrored = np.ascontiguousarray(kernel[::-1, ::-1], np.float32)
    mirrored /= mirrored.sum()
    signal = fftconvolve(np.where(bad, np.float32(0), image).astype(np.float32) * weight, mirrored, "same")
    information = fftconvolve(weight, mirrored**2, "same")
    floor = np.float32(1e-6) * information.max(initial=0.0)
    known = ~bad & (information > floor)
    return np.where(known, signal / np.sqrt(np.where(known, information, 1)), 0).astype(np.float32)


def detect(
    sn: np.ndarray,
    bad: np.ndarray,
    threshold: float,
    min_area: int,
    *,
    deblend_contrast: float = 0.002,
) -> Detections:
    """Find connected groups of pixels above a threshold, split where they have several peaks.

    Parameters
    ----------
    sn
        Map of signal to noise (ny, nx).
    bad
        Where nothing may be found (ny, nx).
    threshold
        Least signal to noise of a footprint's pixels.
    min_area
        Least number of pixels of a footprint.
    deblend_contrast
        Least part of a footprint's signal that makes a peak a source of its own; 1 never splits.
    """
    # Room for every pixel and no more: sep touches it all, which for millions takes longer than the search.
    sep.set_extract_pixstack(max(sn.size, LEAST_PIXEL_STACK))
    # sep's own cleaning loses half of the faint stars beside bright ones, and its filter would smooth the map twice.
    found, segmentation = sep.extract(
        np.ascontiguousarray(sn, np.float32),
        threshold,
        mask=bad,
        minarea=min_area,
        filter_kernel=None,
        deblend_cont=deblend_contrast,
        clean=False,
        segmentation_map=True,
    )
    return Detections(
        found["x"],
        found["y"],
        found["xpeak"],
        found["ypeak"],
        sn[found["ypeak"], found["xpeak"]],
        found["npix"],
        segmentation,
    )
