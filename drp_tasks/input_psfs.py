"""The PSF of a coadd as the mean of its visits' PSFs: what it is at a place depends on which visits see the place.

Belongs here: that model, its fit to the warps and its table form. Doesn't: choosing the stars (`drp_tasks.coadd_psf`).

Where a gap between detectors takes the sharpest of four visits away the coadd's PSF jumps by several percent, which no
polynomial over the patch can follow, and the fluxes of point sources jump with it (LSST's CoaddPsf does the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from astropy.table import Table, vstack
from lsst.images import MaskedImage
from numpy.typing import NDArray

from drp_tasks.images import plane, start_xy, unusable
from drp_tasks.psf import PolynomialPsf, TooFewStarsError, fit_psf

GRID_PX = 4
"""Coverage is known on every fourth pixel."""


@dataclass(frozen=True, eq=False)
class InputPsf:
    """One visit's part in a coadd.

    Parameters
    ----------
    visit
        Its identifier.
    weight
        Its weight in the mean.
    psf
        Its PSF, in tract pixels.
    coverage
        Where it has data, on a grid of every fourth pixel (ny, nx).
    origin_xy
        Tract pixel of the grid's first point.
    """

    visit: int
    weight: float
    psf: PolynomialPsf
    coverage: NDArray[np.bool_]
    origin_xy: tuple[int, int]

    def covers(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return whether the visit has data at places (n,) in tract pixels."""
        ny, nx = self.coverage.shape
        column = np.clip(np.rint((np.asarray(x) - self.origin_xy[0]) / GRID_PX), 0, nx - 1).astype(np.int64)
        row = np.clip(np.rint((np.asarray(y) - self.origin_xy[1]) / GRID_PX), 0, ny - 1).astype(np.int64)
        return self.coverage[row, column]

    def to_table(self) -> Table:
        """Return one row a term of the PSF's polynomial; all bear the visit, its weight and its coverage."""
        table = self.psf.to_table()
        bits = np.packbits(self.coverage)
        facts = {"visit": self.visit, "weight": self.weight, "gridHeight": self.coverage.shape[0]}
        facts |= {"gridWidth": self.coverage.shape[1], "gridX": self.origin_xy[0], "gridY": self.origin_xy[1]}
        for name, value in facts.items():
            table[name] = np.full(len(table), value)
        table["coverage"] = np.tile(bits, (len(table), 1))
        return table

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Return what `to_table` wrote."""
        height, width = int(table["gridHeight"][0]), int(table["gridWidth"][0])
        bits = np.unpackbits(np.asarray(table["coverage"][0], np.uint8), count=height * width)
        return cls(
            int(table["visit"][0]),
            float(table["weight"][0]),
            PolynomialPsf.from_table(table),
            bits.reshape(height, width).astype(bool),
            (int(table["gridX"][0]), int(table["gridY"][0])),
        )


@dataclass(frozen=True, eq=False)
class MeanPsf(PolynomialPsf):
    """The weighted mean of the PSFs of the visits that see a place; of all visits where none does.

    Parameters
    ----------
    inputs
        The visits. `coefficients` holds those of all of them, one visit after the other.
    """

    inputs: tuple[InputPsf, ...]

    @classmethod
    def of(cls, inputs: Sequence[InputPsf]) -> Self:
        """Make the mean of some visits' PSFs; at least one."""
        first = inputs[0].psf
        return cls(
            np.concatenate([one.psf.coefficients for one in inputs]),
            max(one.psf.order for one in inputs),
            first.centre_xy,
            first.scale,
            min(one.psf.n_stars for one in inputs),
            tuple(inputs),
        )

    @classmethod
    def from_input_table(cls, table: Table) -> Self:
        """Return the mean of the visits in a table that `inputs_to_table` wrote."""
        visits = np.asarray(table["visit"])
        return cls.of([InputPsf.from_table(table[visits == visit]) for visit in np.unique(visits)])

    def _normalised_terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        weight = np.stack([one.weight * one.covers(x, y) for one in self.inputs], axis=-1)
        lonely = weight.sum(axis=-1) <= 0
        weight[lonely] = [one.weight for one in self.inputs]
        weight /= weight.sum(axis=-1, keepdims=True)
        terms = [one.psf._normalised_terms(x, y) * weight[:, [k]] for k, one in enumerate(self.inputs)]
        return np.concatenate(terms, axis=1)


def inputs_to_table(inputs: Sequence[InputPsf]) -> Table:
    """Return the visits' parts in one table."""
    return vstack([one.to_table() for one in inputs], metadata_conflicts="silent")


def fit_input_psf(
    warp: MaskedImage,
    weight: float,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    half: int,
    max_order: int,
    otherwise: PolynomialPsf,
) -> InputPsf:
    """Fit a visit's PSF to its direct warp at the places where the coadd has its stars.

    Parameters
    ----------
    warp
        The direct warp; its metadata tells the visit.
    weight
        The visit's weight in the coadd.
    x, y
        The stars' places on the coadd (n,), in tract pixels: the coadd's PSF contains how the visits miss each other.
    half, max_order
        As in `drp_tasks.psf.fit_psf`.
    otherwise
        PSF to take if the visit shows too few of the stars.
    """
    origin = start_xy(warp)
    no_data = plane(warp, "NO_DATA")
    try:
        psf, _ = fit_psf(
            warp.image.array,
            warp.variance.array,
            unusable(warp),
            x,
            y,
            start_xy=origin,
            half=half,
            max_order=max_order,
        )
    except TooFewStarsError:
        psf = otherwise
    return InputPsf(int(warp.metadata["visit"]), weight, psf, ~no_data[::GRID_PX, ::GRID_PX], origin)
