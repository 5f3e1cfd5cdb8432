"""The PSF model against the stars: size and shape.

Belongs here: figures of PSF residuals from star tables. Doesn't: the metrics computed from the same moments.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.figures.focal_plane import detector_size, focal_plane_map
from validation.figures.inputs import InputMissing, ReleaseTract, by_band, numbers, rows_where
from validation.figures.recipe import Recipe
from validation.figures.style import ACCENT, FAINT, WARNING, band_colour, canvas, colour_bar, styled
from validation.residuals import robust_width

_COLUMNS = ("detector", "band", "x", "y", "psfFlux", "calibPsfUsed", "starSize", "starE1", "starE2")
_MODEL_COLUMNS = ("psfSize", "psfE1", "psfE2")

LARGEST_SIZE_RESIDUAL = 0.01
"""The requirement that the figure shades: |(S − S_psf)/S_psf| ≤ 1 %."""


@styled
def psf_residuals(stars: Table, places: Mapping[int, tuple[int, int]]) -> Figure:
    """Draw size residuals against magnitude and over the focal plane, and shape residuals.

    Parameters
    ----------
    stars
        PSF stars: band, detector, x, y (pix), psfFlux (nJy), starSize, psfSize (pix), starE1, starE2, psfE1, psfE2.
    places
        (column, row) of each detector.
    """
    size = 100 * (numbers(stars, "starSize") / numbers(stars, "psfSize") - 1)
    figure, ((by_magnitude, plane, shapes),) = canvas(
        "PSF model against stars",
        1,
        3,
        width=11.4,
        height=3.8,
        width_ratios=[1.2, 1, 1],
        subtitle=f"{len(stars):,} PSF stars, median {np.median(size):+.2f} %, σ = {robust_width(size):.2f} %",
    )
    magnitude = 31.4 - 2.5 * np.log10(numbers(stars, "psfFlux"))
    by_magnitude.scatter(magnitude, size, s=5, color=FAINT, alpha=0.4, linewidths=0, rasterized=True)
    edges = np.percentile(magnitude, np.linspace(0, 100, 9))
    centres = (edges[1:] + edges[:-1]) / 2
    cell = np.clip(np.digitize(magnitude, edges) - 1, 0, 7)
    medians = [np.median(size[cell == c]) if (cell == c).any() else np.nan for c in range(8)]
    by_magnitude.plot(centres, medians, "o-", color=ACCENT, label="running median")
    reach = 100 * LARGEST_SIZE_RESIDUAL
    by_magnitude.axhspan(-reach, reach, color=ACCENT, alpha=0.12, linewidth=0, label="± 1 %")
    limit = max(3 * robust_width(size), 2 * reach)
    by_magnitude.set(
        xlabel="PSF magnitude [AB mag]", ylabel=r"(S − S$_{\rm PSF}$) / S$_{\rm PSF}$ [%]", ylim=(-limit, limit)
    )
    by_magnitude.legend(loc="upper left", fontsize=8, ncols=2)
    mesh = focal_plane_map(plane, stars, size, places, detector_size(stars))
    plane.set_title("size over the focal plane")
    colour_bar(figure, mesh, plane, r"median (S − S$_{\rm PSF}$) / S$_{\rm PSF}$ [%]")
    _draw_shapes(shapes, stars)
    return figure


def _draw_shapes(axes: Axes, stars: Table) -> None:
    bins = np.linspace(-0.05, 0.05, 41).tolist()
    for band, rows in by_band(stars):
        for component, line in (("E1", "-"), ("E2", ":")):
            values = numbers(rows, f"star{component}") - numbers(rows, f"psf{component}")
            axes.hist(
                values,
                bins=bins,
                histtype="step",
                density=True,
                linestyle=line,
                color=band_colour(band),
                label=f"{band} δ{component.lower()}  σ = {robust_width(values):.4f}",
            )
    axes.axvline(0, color=WARNING, linewidth=0.8)
    axes.set(xlabel="star − model ellipticity", yticks=[])
    axes.legend(fontsize=7, loc="upper left", handlelength=1.2)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.5)


def _draw(tract: ReleaseTract) -> Figure:
    stars = tract.table("recalibrated_star", (*_COLUMNS, *_MODEL_COLUMNS))
    moments = [numbers(stars, name) for name in ("starSize", "starE1", "starE2", *_MODEL_COLUMNS, "psfFlux")]
    used = rows_where(stars, np.asarray(stars["calibPsfUsed"], bool), np.isfinite(moments).all(axis=0))
    used = rows_where(used, numbers(used, "psfFlux") > 0)
    if len(used) < 10:
        raise InputMissing(f"only {len(used)} PSF stars have moments")
    return psf_residuals(used, tract.detector_places())


RECIPES = (
    Recipe(
        "psf_residuals",
        "PSF model against stars",
        "A trend with magnitude is the brighter-fatter effect; a pattern over the focal plane a model too stiff.",
        "recalibrated_star",
        _draw,
    ),
)
