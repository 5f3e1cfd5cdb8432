"""Difference imaging to look at: visit, template and difference around DiaSources.

Belongs here: triplets of cut-outs. Doesn't: completeness of difference imaging (`validation.figures.truth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from validation.figures.inputs import InputMissing, ReleaseTract, numbers, rows_where
from validation.figures.recipe import Recipe
from validation.figures.style import DIVERGING, canvas, picture_panel, styled
from validation.residuals import robust_width

HALF_PIXELS = 20
SHOWN = 6
_IMAGES = ("visit_image", "template_detector", "difference_image")


@dataclass(frozen=True, slots=True)
class Triplet:
    """Three cut-outs around one DiaSource, nJy; NaN beyond an edge."""

    visit_image: np.ndarray
    template: np.ndarray
    difference: np.ndarray
    label: str


@styled
def difference_triplets(triplets: Sequence[Triplet]) -> Figure:
    """Draw visit, template and difference of several DiaSources, one a column.

    Parameters
    ----------
    triplets
        At least one. The visit and its template share a stretch.
    """
    figure, grid = canvas("Difference imaging", 3, len(triplets), width=1.75 * len(triplets) + 0.6, height=5.9)
    for column, triplet in enumerate(triplets):
        noise = robust_width(triplet.difference[np.isfinite(triplet.difference)]) or 1.0
        middle = float(np.nanmedian(triplet.visit_image))
        for axes, image in zip(grid[:2, column], (triplet.visit_image, triplet.template), strict=True):
            stretched = np.arcsinh((image - middle) / (2 * noise))
            axes.imshow(stretched, origin="lower", cmap="gray_r", vmin=-1.0, vmax=4.0, interpolation="nearest")
        grid[2, column].imshow(
            triplet.difference / noise, origin="lower", cmap=DIVERGING, vmin=-8, vmax=8, interpolation="nearest"
        )
        grid[0, column].set_title(triplet.label, fontsize=8, loc="center")
    for axes in grid.flat:
        picture_panel(axes)
        axes.plot([HALF_PIXELS] * 2, [HALF_PIXELS + 6, HALF_PIXELS + 9], color="#D55E00", linewidth=1)
        axes.plot([HALF_PIXELS + 6, HALF_PIXELS + 9], [HALF_PIXELS] * 2, color="#D55E00", linewidth=1)
    for axes, name in zip(grid[:, 0], ("visit", "template", "difference\n± 8 σ"), strict=True):
        axes.set_ylabel(name)
    return figure


def spread_over_significance(sources: Table, count: int) -> Table:
    """Pick DiaSources from the most significant to the least, evenly.

    Parameters
    ----------
    sources
        With columns snr and flag; flagged ones are left out.
    count
        How many, at most.
    """
    clean = rows_where(sources, ~np.asarray(sources["flag"], bool), np.isfinite(numbers(sources, "snr")))
    order = np.argsort(-np.abs(numbers(clean, "snr")))
    picked = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return clean[order[picked]]


def _draw(tract: ReleaseTract) -> Figure:
    columns = ("diaSourceId", "visit", "detector", "band", "x", "y", "snr", "flag")
    chosen = spread_over_significance(tract.table("dia_source", columns), SHOWN)
    triplets = []
    for source in chosen:
        where = {"visit": int(source["visit"]), "detector": int(source["detector"])}
        x, y = float(source["x"]), float(source["y"])
        visit, template, difference = (
            tract.cutout(tract.refs(name, **where)[0], x, y, HALF_PIXELS) for name in _IMAGES
        )
        label = f"{source['visit']}, {source['detector']}\n{source['band']}  S/N {float(source['snr']):.0f}"
        triplets.append(Triplet(visit, template, difference, label))
    if not triplets:
        raise InputMissing("every DiaSource is flagged")
    return difference_triplets(triplets)


RECIPES = (
    Recipe(
        "difference_triplets",
        "Difference imaging",
        "A point in the difference is a transient; a dipole a wrong WCS; a ring a wrong kernel.",
        "dia_source",
        _draw,
    ),
)
