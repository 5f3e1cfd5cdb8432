"""Maps over the focal plane: detectors in their places, each cut into cells.

Belongs here: drawing any quantity measured at detector positions. Doesn't: whole figures (their families do).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from validation.figures.inputs import numbers
from validation.figures.style import DIVERGING, FAINT, INK, picture_panel
from validation.residuals import binned_median

_GAP = 0.04


def detector_size(table: Table) -> float:
    """Tell a detector's side from the positions measured on it, pixels.

    Parameters
    ----------
    table
        Columns x and y.
    """
    return float(np.ceil(max(np.nanmax(numbers(table, "x")), np.nanmax(numbers(table, "y"))) + 1))


def focal_plane_map(
    axes: Axes,
    table: Table,
    values: np.ndarray,
    places: Mapping[int, tuple[int, int]],
    size: float,
    cells: int = 4,
) -> ScalarMappable:
    """Draw the median of a quantity in cells of each detector, in colours symmetric about zero.

    Parameters
    ----------
    axes
        The panel.
    table
        Columns detector, x, y (pix), a row a value.
    values
        The quantity.
    places
        (column, row) of each detector; one without a place isn't drawn.
    size
        Side of a detector, pixels.
    cells
        Along each side of a detector.

    Returns
    -------
    matplotlib.cm.ScalarMappable
        For a colour bar.
    """
    detector, x, y = np.asarray(table["detector"]), numbers(table, "x"), numbers(table, "y")
    edges = np.linspace(-0.5, size + 0.5, cells + 1)
    maps = {d: binned_median(x[detector == d], y[detector == d], values[detector == d], edges) for d in places}
    filled = np.concatenate([cell[np.isfinite(cell)] for cell in maps.values()] or [np.zeros(0)])
    reach = float(np.percentile(np.abs(filled), 98)) if len(filled) else 1.0
    scale = Normalize(-reach or -1.0, reach or 1.0)
    for d, cell in maps.items():
        column, row = places[d]
        sides = np.linspace(0, 1 - _GAP, cells + 1)
        axes.pcolormesh(column + sides, row + sides, cell, norm=scale, cmap=DIVERGING)
        axes.add_patch(Rectangle((column, row), 1 - _GAP, 1 - _GAP, fill=False, edgecolor=FAINT, linewidth=0.8))
        if len(places) <= 25:
            axes.annotate(str(d), (column + 0.04, row + 0.04), fontsize=7, color=INK, alpha=0.7)
    picture_panel(axes)
    axes.autoscale_view()
    return ScalarMappable(scale, DIVERGING)
