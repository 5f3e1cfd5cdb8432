"""Resampling of an image from one WCS onto another: Lanczos-3, with its variance and its mask.

Belongs here: pure functions of arrays and WCSs, used for warps onto patches and for templates onto detectors.
Doesn't: reading images, choosing what overlaps what (`drp_tasks.make_warp`, `drp_tasks.build_template`).

Conventions: pixel coordinates are 0-based, the centre of the first pixel at (0, 0). A WCS speaks in absolute
coordinates of its frame; an array whose first pixel isn't at (0, 0) of that frame says where it starts. Boxes are half
open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import lsst.images as li
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter

LANCZOS_ORDER = 3
_SUPPORT = 2 * LANCZOS_ORDER
_TABLE_STEPS = 4096
_GRID_STEP_PX = 32
_BLOCK_PIXELS = 32768
_FILL_SIGMA_PX = 1.2


class Box(NamedTuple):
    """A half-open box of pixels in absolute coordinates of a frame."""

    x_start: int
    y_start: int
    x_stop: int
    y_stop: int

    @classmethod
    def of(cls, bbox: li.Box) -> Box:
        """Take over the bounding box of an image."""
        return cls(bbox.x.start, bbox.y.start, bbox.x.stop, bbox.y.stop)

    @property
    def bbox(self) -> li.Box:
        """The same as a bounding box, to read a part of an image with."""
        return li.Box.factory[self.y_start : self.y_stop, self.x_start : self.x_stop]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (rows, columns) of an array that covers the box."""
        return max(self.y_stop - self.y_start, 0), max(self.x_stop - self.x_start, 0)

    def intersection(self, other: Box) -> Box:
        """Return the box of the pixels that are in both; its shape has a zero where there are none."""
        return Box(
            max(self.x_start, other.x_start),
            max(self.y_start, other.y_start),
            min(self.x_stop, other.x_stop),
            min(self.y_stop, other.y_stop),
        )

    def slices_within(self, outer: Box) -> tuple[slice, slice]:
        """Return the slices (rows, columns) of this box in an array that covers `outer`."""
        return (
            slice(self.y_start - outer.y_start, self.y_stop - outer.y_start),
            slice(self.x_start - outer.x_start, self.x_stop - outer.x_start),
        )


@dataclass(frozen=True, slots=True)
class Warped:
    """An image on its new grid.

    Attributes
    ----------
    array : `numpy.ndarray`
        Pixel values (ny, nx), float32, in the unit of the input; finite everywhere, zero outside of the input.
    variance : `numpy.ndarray`
        Variance (ny, nx), float32, zero outside of the input. It is the noise power on scales of the PSF and above,
        which is what a flux feels: resampling correlates neighbouring pixels, so that a single pixel scatters a little
        less.
    bad : `numpy.ndarray`
        True where the value is not to be used: outside of the input, or touched by a bad input pixel.
    """

    array: NDArray[np.float32]
    variance: NDArray[np.float32]
    bad: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PixelMap:
    """Where each output pixel lies in the input array.

    Attributes
    ----------
    x, y : `numpy.ndarray`
        Input array coordinates (pixels) of the centres of the output pixels, (ny, nx).
    area : `numpy.ndarray`
        Input pixels per output pixel, (ny, nx): the factor that conserves flux.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: NDArray[np.float32]


def map_pixels(
    wcs_in: WCS, wcs_out: WCS, box_xy: tuple[int, int, int, int], start_xy: tuple[int, int] = (0, 0)
) -> PixelMap:
    """Find the input position of every pixel of a box of the output frame.

    Both WCSs are evaluated on a grid of 32 pixels only, and a bicubic spline does the rest: within 1e-4 pixel of the
    WCSs themselves for the distortions of a wide-field camera.

    Parameters
    ----------
    wcs_in, wcs_out
        WCSs of the input's and the output's frames.
    box_xy
        Output pixels (x_start, y_start, x_stop, y_stop), half open, in coordinates of the output's frame.
    start_xy
        Coordinates, in the input's frame, of the input array's first pixel.
    """
    box = Box(*box_xy)
    ny, nx = box.shape
    grid_x = np.linspace(0, nx - 1, max(4, -(-nx // _GRID_STEP_PX) + 1))
    grid_y = np.linspace(0, ny - 1, max(4, -(-ny // _GRID_STEP_PX) + 1))
    mesh_x, mesh_y = np.meshgrid(grid_x + box.x_start, grid_y + box.y_start)
    ra, dec = wcs_out.all_pix2world(mesh_x.ravel(), mesh_y.ravel(), 0)
    found_x, found_y = wcs_in.all_world2pix(ra, dec, 0, quiet=True)
    spline_x = RectBivariateSpline(grid_y, grid_x, (found_x - start_xy[0]).reshape(mesh_x.shape))
    spline_y = RectBivariateSpline(grid_y, grid_x, (found_y - start_xy[1]).reshape(mesh_x.shape))
    determinant = spline_x(grid_y, grid_x, dy=1) * spline_y(grid_y, grid_x, dx=1) - spline_x(
        grid_y, grid_x, dx=1
    ) * spline_y(grid_y, grid_x, dy=1)
    area = RectBivariateSpline(grid_y, grid_x, np.abs(determinant), kx=1, ky=1)
    rows, columns = np.arange(ny), np.arange(nx)
    return PixelMap(spline_x(rows, columns), spline_y(rows, columns), area(rows, columns).astype(np.float32))


def _lanczos_table() -> NDArray[np.float32]:
    """Tabulate the six weights by the fraction of a pixel; each row sums to one, so that a constant stays itself."""
    fraction = np.linspace(0.0, 1.0, _TABLE_STEPS + 1)[:, None]
    distance = fraction - np.arange(1 - LANCZOS_ORDER, LANCZOS_ORDER + 1)
    weight = np.where(np.abs(distance) < LANCZOS_ORDER, np.sinc(distance) * np.sinc(distance / LANCZOS_ORDER), 0.0)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


_LANCZOS_TABLE = _lanczos_table()


def lanczos(array: NDArray[np.floating], pixel_map: PixelMap) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Interpolate an array with the Lanczos-3 kernel, its weights normalised: surface brightness is conserved.

    Returns
    -------
    values : `numpy.ndarray`
        Interpolated values, zero where the 6×6 support leaves the array.
    inside : `numpy.ndarray`
        True where the support lies in the array.
    """
    height, width = array.shape
    flat = np.ascontiguousarray(array, dtype=np.float32).ravel()
    ny, nx = pixel_map.x.shape
    values = np.zeros((ny, nx), np.float32)
    inside = np.zeros((ny, nx), bool)
    reach = LANCZOS_ORDER - 1
    # A block's dozen temporaries stay in the processor's cache; a whole image's don't, which costs a factor of two.
    step = max(1, _BLOCK_PIXELS // max(nx, 1))
    for first in range(0, ny, step):
        rows = slice(first, first + step)
        x, y = pixel_map.x[rows], pixel_map.y[rows]
        column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
        weight_x = _LANCZOS_TABLE[((x - column) * _TABLE_STEPS + 0.5).astype(np.int32)]
        weight_y = _LANCZOS_TABLE[((y - row) * _TABLE_STEPS + 0.5).astype(np.int32)]
        within = (column >= reach) & (column < width - LANCZOS_ORDER) & (row >= reach) & (row < height - LANCZOS_ORDER)
        if not within.any():
            continue
        corner = np.where(within, (row - reach) * width + column - reach, 0)
        total = np.zeros(x.shape, np.float32)
        for j in range(_SUPPORT):
            line = weight_x[..., 0] * flat[corner + j * width]
            for i in range(1, _SUPPORT):
                line += weight_x[..., i] * flat[corner + (j * width + i)]
            total += weight_y[..., j] * line
        values[rows] = np.where(within, total, 0)
        inside[rows] = within
    return values, inside


def touched(plane: NDArray[np.bool_], pixel_map: PixelMap) -> NDArray[np.bool_]:
    """Carry a mask plane: True where any of the four input pixels around an output pixel is set; False outside."""
    result = np.zeros(pixel_map.x.shape, bool)
    if not plane.any():
        return result
    height, width = plane.shape
    column, row = np.floor(pixel_map.x).astype(np.int32), np.floor(pixel_map.y).astype(np.int32)
    within = (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    # Gather the four neighbours at once: the plane is first widened by one pixel down and to the left.
    spread = plane.copy()
    spread[:-1] |= plane[1:]
    spread[:, :-1] |= spread[:, 1:].copy()
    result[within] = spread[row[within], column[within]]
    return result


def fill_bad(array: NDArray[np.floating], bad: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Replace bad pixels by a local mean of good ones, so that the kernel doesn't spread them around."""
    filled = np.where(bad, 0, array).astype(np.float32)
    if bad.any():
        share = gaussian_filter((~bad).astype(np.float32), _FILL_SIGMA_PX)
        local = gaussian_filter(filled, _FILL_SIGMA_PX)
        filled[bad] = (local / np.maximum(share, 1e-3))[bad]
    return filled


def warp(
    array: NDArray[np.floating],
    variance: NDArray[np.floating],
    bad: NDArray[np.bool_],
    wcs_in: WCS,
    wcs_out: WCS,
    box_xy: tuple[int, int, int, int],
    start_xy: tuple[int, int] = (0, 0),
) -> Warped:
    """Resample an image in flux per pixel onto a box of another frame; flux is conserved.

    Parameters
    ----------
    array, variance, bad
        The input's pixels, their variance and which of them are not to be used, all (rows, columns).
    wcs_in, wcs_out
        WCSs of the input's and the output's frames.
    box_xy
        Output pixels (x_start, y_start, x_stop, y_stop), half open, in coordinates of the output's frame.
    start_xy
        Coordinates, in the input's frame, of the input array's first pixel (a cut-out's origin).
    """
    return warp_mapped(array, variance, bad, map_pixels(wcs_in, wcs_out, box_xy, start_xy))


def warp_mapped(
    array: NDArray[np.floating], variance: NDArray[np.floating], bad: NDArray[np.bool_], pixel_map: PixelMap
) -> Warped:
    """Resample as `warp` does, with a pixel map that the caller has already (to carry more planes with `touched`)."""
    values, inside = lanczos(fill_bad(array, bad), pixel_map)
    values *= pixel_map.area
    height, width = array.shape
    column = np.clip(np.rint(pixel_map.x), 0, width - 1).astype(np.int32)
    row = np.clip(np.rint(pixel_map.y), 0, height - 1).astype(np.int32)
    # White noise of variance v per input pixel has the low-frequency power v * area per output pixel.
    noise = np.where(inside, fill_bad(variance, bad)[row, column] * pixel_map.area, 0).astype(np.float32)
    return Warped(values, noise, ~inside | touched(bad, pixel_map))


def footprint_box(
    wcs_in: WCS, shape_in: tuple[int, int], wcs_out: WCS, margin: int = 4, start_xy: tuple[int, int] = (0, 0)
) -> Box:
    """Find the box of the output's frame that holds an input array of shape (rows, columns), and a margin around it."""
    height, width = shape_in
    along = np.linspace(-0.5, 0.5, 5)
    x = np.concatenate([along, along, np.full(5, -0.5), np.full(5, 0.5)]) * width + (width - 1) / 2 + start_xy[0]
    y = np.concatenate([np.full(5, -0.5), np.full(5, 0.5), along, along]) * height + (height - 1) / 2 + start_xy[1]
    ra, dec = wcs_in.all_pix2world(x, y, 0)
    found_x, found_y = wcs_out.all_world2pix(ra, dec, 0, quiet=True)
    return Box(
        int(np.floor(found_x.min())) - margin,
        int(np.floor(found_y.min())) - margin,
        int(np.ceil(found_x.max())) + margin + 1,
        int(np.ceil(found_y.max())) + margin + 1,
    )
