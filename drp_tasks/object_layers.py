"""Coadds on which each child of a blend is alone, so that whatever measures isolated objects measures children too.

Belongs here: the objects as arrays, and the layers: the coadd with blends replaced by one child's share each.
Doesn't: dividing one blend (`drp_tasks.deblending`), measurements (`drp_tasks.measure_objects`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from drp_tasks.deblending import Blend, deblend
from drp_tasks.images import start_xy
from drp_tasks.object_bands import Band

type Floats = NDArray[np.float64]
type Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Objects:
    """What is to be measured, arrays (n,): absolute positions, footprints and ellipses in pixels and radians."""

    x: Floats
    y: Floats
    footprint: Indices
    semi_major: Floats
    semi_minor: Floats
    theta: Floats

    @classmethod
    def from_peaks(cls, peaks: Table) -> Objects:
        """Take over rows of object_peak."""
        x, y, semi_major, semi_minor, theta = (
            np.array(peaks[name], np.float64) for name in ("x", "y", "semiMajor", "semiMinor", "theta")
        )
        return cls(x, y, np.array(peaks["footprint"], np.int64), semi_major, semi_minor, theta)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, members: Indices) -> Objects:
        """Return some of the objects."""
        return Objects(
            self.x[members],
            self.y[members],
            self.footprint[members],
            self.semi_major[members],
            self.semi_minor[members],
            self.theta[members],
        )

    def at(self, x: Floats, y: Floats) -> Objects:
        """Return the same objects elsewhere."""
        return Objects(x, y, self.footprint, self.semi_major, self.semi_minor, self.theta)


@dataclass(frozen=True, eq=False)
class Layer:
    """An image on which some of the objects are alone in their footprints.

    Parameters
    ----------
    image
        The coadd (ny, nx), blends replaced by one child's share each.
    members
        Indices of the objects that may be measured on it.
    """

    image: NDArray[np.float32]
    members: Indices


def layers(
    band: Band, objects: Objects, footprints: NDArray[np.int32], wanted: NDArray[np.bool_] | None = None
) -> Iterator[Layer]:
    """Deblend a band's coadd: first the coadd itself with what isn't blended, then one layer for the n-th children.

    Parameters
    ----------
    band
        The coadd and its PSF.
    objects
        All objects; those that share a footprint are blended.
    footprints
        Map (ny, nx) of the footprints' numbers.
    wanted
        Which objects (n,) are of interest, all unless told; blends without one aren't divided.
    """
    wanted = np.ones(len(objects), bool) if wanted is None else wanted
    asked = np.zeros(int(footprints.max()) + 1, bool)
    asked[objects.footprint[wanted]] = True
    count = np.bincount(objects.footprint, minlength=int(footprints.max()) + 1)
    alone = np.flatnonzero(wanted & (count[objects.footprint] == 1))
    image = band.coadd.image.array
    yield Layer(image, alone)
    stamps = band.psf.stamps_at(objects.x, objects.y)
    pieces: dict[int, list[tuple[int, tuple[slice, ...], NDArray[np.bool_], NDArray[np.float32]]]] = {}
    for number, box in enumerate(find_objects(footprints), start=1):
        if box is None or count[number] < 2 or not asked[number]:
            continue
        children = np.flatnonzero(objects.footprint == number)
        inside = footprints[box] == number
        shares = _divide_blend(band, objects, children, stamps[children], box, inside)
        for order, (child, share) in enumerate(zip(children, shares, strict=True)):
            pieces.setdefault(order, []).append((int(child), box, inside, share))
    for _, parts in sorted(pieces.items()):
        layer = image.copy()
        for _, box, inside, share in parts:
            layer[box][inside] = share[inside]
        members = np.array([child for child, *_ in parts], np.int64)
        yield Layer(layer, members[wanted[members]])


def _divide_blend(
    band: Band, objects: Objects, children: Indices, stamps: Floats, box: tuple[slice, ...], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the children's shares (n, rows, columns) of the pixels in a box."""
    x0, y0 = start_xy(band.coadd)
    blend = Blend(band.coadd.image.array[box], band.coadd.variance.array[box], inside, ~band.unusable[box])
    column = np.rint(objects.x[children]).astype(np.int64) - x0 - box[1].start
    row = np.rint(objects.y[children]).astype(np.int64) - y0 - box[0].start
    return deblend(blend, stamps, column, row)
