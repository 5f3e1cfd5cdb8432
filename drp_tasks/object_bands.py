"""The bands of a patch side by side: coadds with their PSFs, and the maps on which objects are looked for.

Belongs here: what detection and measurement of objects share about bands. Doesn't: either of them
(`drp_tasks.detect_objects`, `drp_tasks.measure_objects`).

The merged map is the square root of the summed squares of the bands' positive signals to noise: the best one for a
colour that isn't known beforehand (Szalay, Connolly and Szokoly 1999), and as good where a band shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.table import Table
from lsst.images import MaskedImage
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, label
from scipy.optimize import brentq
from scipy.stats import binom, chi2, norm

from drp_tasks.assemble_coadd import COADD_UNUSABLE
from drp_tasks.detection import FWHM_PER_SIGMA, gaussian_kernel, signal_to_noise
from drp_tasks.images import plane, start_xy, unusable
from drp_tasks.input_psfs import MeanPsf
from drp_tasks.psf import PolynomialPsf

PATCH_DIMENSIONS = ("skymap", "tract", "patch")

_RIM_PX = 2


@dataclass(frozen=True, eq=False)
class Band:
    """One band's coadd and its PSF."""

    name: str
    coadd: MaskedImage
    psf: PolynomialPsf

    @cached_property
    def unusable(self) -> NDArray[np.bool_]:
        """Where the coadd can't be measured (ny, nx)."""
        return unusable(self.coadd, COADD_UNUSABLE)

    @cached_property
    def saturated(self) -> NDArray[np.bool_]:
        """Where most visits were saturated (ny, nx)."""
        return plane(self.coadd, "SAT")

    @cached_property
    def fwhm_px(self) -> float:
        """Width of the Gaussian that has as many effective pixels as the PSF in the patch's middle."""
        x0, y0 = start_xy(self.coadd)
        ny, nx = self.coadd.image.array.shape
        middle = self.psf.image_at(x0 + nx / 2, y0 + ny / 2)
        return float(FWHM_PER_SIGMA / np.sqrt(4 * np.pi * np.sum(middle**2)))


def pair_bands(coadds: Mapping[str, MaskedImage], psfs: Mapping[str, Table]) -> list[Band]:
    """Put the coadds and the PSFs of their inputs together, by name of band; a coadd without PSF is left out."""
    names = sorted(coadds.keys() & psfs.keys())
    return [Band(name, coadds[name], MeanPsf.from_input_table(psfs[name])) for name in names]


def significance_map(
    band: Band, kernel_scale: float, *, without: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the signal to noise at each pixel (ny, nx) after a Gaussian filter, zero where nothing is known.

    Parameters
    ----------
    band
        The coadd and its PSF.
    kernel_scale
        Width of the filter in units of the PSF's. One is the best for a lonely star; a narrower one tells neighbours
        apart and costs little: 2k / (1 + k²) of the significance.
    without
        Light (ny, nx) to take off first.
    """
    image = band.coadd.image.array if without is None else band.coadd.image.array - without
    kernel = gaussian_kernel(kernel_scale * band.fwhm_px)
    return signal_to_noise(image, band.coadd.variance.array, band.unusable, kernel)


def merge_maps(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the root of the summed squares of the positive parts (ny, nx)."""
    total = np.zeros_like(maps[0])
    for one in maps:
        total += np.square(np.maximum(one, 0))
    return np.sqrt(total)


def bridge(merged: NDArray[np.float32], saturated: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill saturated cores with the highest significance around them, lest a star fall into the pieces of a ring.

    Parameters
    ----------
    merged
        Merged map (ny, nx).
    saturated
        Where any band is saturated (ny, nx).
    """
    bridged = merged.copy()
    cores, _ = label(binary_dilation(saturated, iterations=_RIM_PX))
    for number, box in enumerate(find_objects(cores), start=1):
        core = cores[box] == number
        bridged[box][core] = merged[box][core].max()
    return bridged


def merged_threshold(n_bands: int, n_sigma: float) -> float:
    """Return the value that noise on a merged map exceeds as rarely as a Gaussian exceeds ``n_sigma``.

    The squared map is zero in the bands where noise is negative, so that it follows a mixture of chi-squared
    distributions, binomially weighted, of 1 to ``n_bands`` degrees of freedom.
    """
    bands = np.arange(1, n_bands + 1)
    weight = binom.pmf(bands, n_bands, 0.5)

    def excess(log_threshold: float) -> float:
        probability = (weight * chi2.sf(np.exp(2 * log_threshold), bands)).sum()
        return float(np.log(probability) - norm.logsf(n_sigma))

    return float(np.exp(brentq(excess, np.log(0.1), np.log(n_sigma + 3 * n_bands))))
