"""The survey visit by visit: seeing, zero point, sky and effective exposure time.

Belongs here: figures of visit summaries in the order of time. Doesn't: residuals of stars
(`validation.figures.residuals`).
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.figures.inputs import InputMissing, ReleaseTract, by_band, numbers
from validation.figures.recipe import Recipe
from validation.figures.style import FAINT, band_colour, band_legend, band_marker, canvas, styled

_COLUMNS = ("visit", "detector", "band", "mjdMid", "psfFwhm", "zeroPoint", "skyBackground", "effTime")


@styled
def visit_timeline(summary: Table) -> Figure:
    """Draw each visit's seeing, zero point, sky and effective time; bars span its detectors.

    Parameters
    ----------
    summary
        A row a visit and detector: visit, band, mjdMid (TAI), psfFwhm (arcsec), zeroPoint (mag), skyBackground
        (electron/pix), effTime (s).
    """
    visits = len(np.unique(np.asarray(summary["visit"])))
    figure, panels = canvas(
        "Visits in the order of time",
        4,
        1,
        width=9.6,
        height=6.6,
        sharex=True,
        subtitle=f"{visits:,} visits, {len(summary):,} visit-detectors; bars: range of the detectors",
    )
    quantities = (
        ("psfFwhm", "seeing\n[arcsec]"),
        ("zeroPoint", "zero point −\nband's median [mag]"),
        ("skyBackground", "sky\n[electron/pix]"),
        ("effTime", "effective\ntime [s]"),
    )
    order, starts = _in_time(summary)
    for (axes,), (column, label) in zip(panels, quantities, strict=True):
        _draw_quantity(axes, summary, column, order)
        axes.set_ylabel(label, fontsize=9)
        for start in starts[1:]:
            axes.axvline(start[0] - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
    band_legend(figure, np.asarray(summary["band"]).astype(str))
    panels[-1, 0].set_xticks([place for place, _ in starts], [day for _, day in starts], ha="left")
    panels[-1, 0].set_xlabel("day_obs; visits evenly spaced")
    return figure


def _in_time(summary: Table) -> tuple[dict[int, int], list[tuple[int, str]]]:
    """Give each visit its place in time, and the places at which a day_obs begins (at most twelve of them)."""
    times = {int(visit): float(mjd) for visit, mjd in zip(summary["visit"], summary["mjdMid"], strict=True)}
    visits = sorted(times, key=lambda visit: (times[visit], visit))
    days = [str(visit // 100000) for visit in visits]
    starts = [(place, day) for place, day in enumerate(days) if place == 0 or days[place - 1] != day]
    return {visit: place for place, visit in enumerate(visits)}, starts[:: -(-len(starts) // 12)]


def _draw_quantity(axes: Axes, summary: Table, column: str, order: dict[int, int]) -> None:
    for band, rows in by_band(summary):
        values, of_visit = numbers(rows, column), np.asarray(rows["visit"])
        if column == "zeroPoint":
            values = values - np.nanmedian(values)
        here = [visit for visit in np.unique(of_visit) if np.isfinite(values[of_visit == visit]).any()]
        if not here:
            continue
        middle = np.array([np.nanmedian(values[of_visit == visit]) for visit in here])
        low = np.array([np.nanmin(values[of_visit == visit]) for visit in here])
        high = np.array([np.nanmax(values[of_visit == visit]) for visit in here])
        axes.errorbar(
            [order[int(visit)] for visit in here],
            middle,
            yerr=(middle - low, high - middle),
            fmt=band_marker(band),
            color=band_colour(band),
            elinewidth=1,
        )


def _draw(tract: ReleaseTract) -> Figure:
    try:
        return visit_timeline(tract.table("visit_summary", _COLUMNS))
    except InputMissing:
        return visit_timeline(tract.table("preliminary_visit_summary", _COLUMNS))


RECIPES = (
    Recipe(
        "visit_timeline",
        "Visits in the order of time",
        "Clouds lower the zero point and the effective time; a bad night shows at once.",
        "visit_summary",
        _draw,
    ),
)
