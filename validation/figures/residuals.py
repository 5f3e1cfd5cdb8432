"""Repeatability: how far measurements of a star lie from its mean, by visit and over the focal plane.

Belongs here: figures of star residuals in position and magnitude. Doesn't: the residuals' arithmetic
(`validation.residuals`) or the metrics AM1 and PA1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.figures.focal_plane import detector_size, focal_plane_map
from validation.figures.inputs import InputMissing, ReleaseTract, by_band, numbers
from validation.figures.recipe import Recipe
from validation.figures.style import (
    ACCENT,
    FAINT,
    INK,
    band_colour,
    band_legend,
    band_marker,
    canvas,
    colour_bar,
    styled,
)
from validation.residuals import robust_width, star_residuals

_STAR_COLUMNS = ("sourceId", "visit", "detector", "band", "x", "y", "ra", "dec", "psfFlux", "psfFluxErr", "flag")


@styled
def photometric_residuals(residuals: Table) -> Figure:
    """Draw each visit's magnitude residuals, and their distribution in each band.

    Parameters
    ----------
    residuals
        As `validation.residuals.star_residuals` gives.
    """
    figure, ((visits, spread),) = canvas(
        "Photometric repeatability", 1, 2, width=9.6, height=4.0, width_ratios=[2, 1], subtitle=_size(residuals)
    )
    _by_visit(visits, residuals, "mag_mmag")
    visits.set(ylabel="magnitude − star's mean [mmag]")
    band_legend(figure, np.asarray(residuals["band"]).astype(str))
    for band, rows in by_band(residuals):
        values = numbers(rows, "mag_mmag")
        spread.hist(
            values,
            bins=np.linspace(-40, 40, 41),
            histtype="step",
            density=True,
            color=band_colour(band),
            label=f"{band}  σ = {robust_width(values):.1f} mmag",
            linewidth=1.6,
        )
    spread.set(xlabel="magnitude − star's mean [mmag]", yticks=[], ylabel="density")
    spread.legend(loc="upper right", fontsize=8, handlelength=1)
    spread.set_ylim(top=spread.get_ylim()[1] * 1.25)
    return figure


@styled
def astrometric_residuals(residuals: Table) -> Figure:
    """Draw each visit's position residuals, and all of them in the plane.

    Parameters
    ----------
    residuals
        As `validation.residuals.star_residuals` gives.
    """
    figure = canvas("Astrometric repeatability", width=9.6, height=4.6)[0]
    figure.clear()
    figure.suptitle("Astrometric repeatability", x=0.01, ha="left")
    panels = figure.subplot_mosaic([["ra", "plane"], ["dec", "plane"]], width_ratios=[1.6, 1])
    for name, column, label in (("ra", "ra_mas", "Δα cos δ [mas]"), ("dec", "dec_mas", "Δδ [mas]")):
        _by_visit(panels[name], residuals, column)
        panels[name].set_ylabel(label)
    panels["ra"].set_title(_size(residuals), fontsize=9, color=FAINT)
    panels["ra"].set_xlabel("")
    panels["ra"].tick_params(labelbottom=False)
    band_legend(figure, np.asarray(residuals["band"]).astype(str))
    plane, ra, dec = panels["plane"], numbers(residuals, "ra_mas"), numbers(residuals, "dec_mas")
    reach = 5 * max(robust_width(ra), robust_width(dec), 0.1)
    plane.hexbin(ra, dec, gridsize=35, extent=(-reach, reach, -reach, reach), cmap="Blues", mincnt=1, linewidths=0.1)
    plane.axhline(0, color=FAINT, linewidth=0.8)
    plane.axvline(0, color=FAINT, linewidth=0.8)
    plane.set(xlabel="Δα cos δ [mas]", ylabel="Δδ [mas]", xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    plane.set_title(f"σ = {robust_width(ra):.1f}, {robust_width(dec):.1f} mas", color=INK)
    return figure


@styled
def focal_plane_residuals(residuals: Table, places: Mapping[int, tuple[int, int]], cells: int = 4) -> Figure:
    """Map the median residuals over the focal plane, in magnitude and both directions of the sky.

    Parameters
    ----------
    residuals
        As `validation.residuals.star_residuals` gives.
    places
        (column, row) of each detector.
    cells
        A detector's cells along each side.
    """
    figure, (panels,) = canvas("Residuals over the focal plane", 1, 3, width=10.4, height=3.3)
    shown = (("mag_mmag", "magnitude", "mmag"), ("ra_mas", "α cos δ", "mas"), ("dec_mas", "δ", "mas"))
    size = detector_size(residuals)
    for axes, (column, name, unit) in zip(panels, shown, strict=True):
        mesh = focal_plane_map(axes, residuals, numbers(residuals, column), places, size, cells)
        axes.set_title(name)
        colour_bar(figure, mesh, axes, f"median residual [{unit}]")
    return figure


def _by_visit(axes: Axes, residuals: Table, column: str) -> None:
    """Draw the median of each visit with the range of the middle 68 %, in the order of visits."""
    visits = np.unique(np.asarray(residuals["visit"]))
    for band, rows in by_band(residuals):
        values, of_visit = numbers(rows, column), np.asarray(rows["visit"])
        here = np.unique(of_visit)
        low, middle, high = np.array([np.percentile(values[of_visit == v], (16, 50, 84)) for v in here]).T
        axes.errorbar(
            np.searchsorted(visits, here),
            middle,
            yerr=(middle - low, high - middle),
            fmt=band_marker(band),
            color=band_colour(band),
            elinewidth=1,
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    reach = max(map(abs, axes.get_ylim()))
    axes.set_ylim(-1.15 * reach, 1.15 * reach)
    _label_visits(axes, visits)


def _label_visits(axes: Axes, visits: np.ndarray, most: int = 14) -> None:
    """Name visits by the end of their number, under their day_obs where that changes."""
    step = max(1, -(-len(visits) // most))
    axes.set_xticks(range(0, len(visits), step), [str(v)[-4:].lstrip("0") for v in visits[::step]])
    days = np.asarray(visits) // 100000
    for place in np.flatnonzero(np.diff(days)) + 0.5:
        axes.axvline(place, color=ACCENT, linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.7, len(visits) - 0.3)
    named = f"{days[0]}" if days[0] == days[-1] else f"{days[0]} … {days[-1]}"
    axes.set_xlabel(f"visit (of day_obs {named})")


def _size(residuals: Table) -> str:
    stars = len(np.unique(np.asarray(residuals["isolatedStarId"])))
    return f"{len(residuals):,} measurements of {stars:,} isolated stars with S/N > 50; bars: middle 68 %"


def _residuals(tract: ReleaseTract) -> Table:
    association = tract.table("isolated_star", ["sourceId", "isolatedStarId"])
    residuals = star_residuals(tract.table("recalibrated_star", _STAR_COLUMNS), association)
    if not len(residuals):
        raise InputMissing("no isolated star was measured twice with S/N > 50")
    return residuals


RECIPES = (
    Recipe(
        "photometric_residuals",
        "Photometric repeatability",
        "A visit off zero has a wrong zero point; a band broader than the others has a noisy calibration.",
        "recalibrated_star",
        lambda tract: photometric_residuals(_residuals(tract)),
    ),
    Recipe(
        "astrometric_residuals",
        "Astrometric repeatability",
        "A visit off zero has a wrong WCS; a broad one suffered from the atmosphere, or has too few stars.",
        "recalibrated_star",
        lambda tract: astrometric_residuals(_residuals(tract)),
    ),
    Recipe(
        "focal_plane_residuals",
        "Residuals over the focal plane",
        "A pattern that follows detectors is a flat or detector term; a smooth one the optics' distortion.",
        "recalibrated_star",
        lambda tract: focal_plane_residuals(_residuals(tract), tract.detector_places()),
    ),
)
