"""The stellar locus: whether the colours of stars lie where stars lie.

Belongs here: the figure of g−r and r−i with the line whose width is wPerp. Doesn't: measuring wPerp.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from validation.figures.inputs import ReleaseTract, numbers, rows_where
from validation.figures.recipe import Recipe
from validation.figures.style import ACCENT, FAINT, INK, WARNING, canvas, styled
from validation.metrics import Measurement
from validation.rendering import number_text

SLOPE, INTERCEPT = 0.483, -0.042
"""r−i = 0.483 (g−r) − 0.042, the straight blue part of the locus (analysis_tools' wPerp)."""

BLUE_PART = (0.28, 1.0)
"""Range of g−r in which wPerp is measured."""

MOST_EXTENDED = 0.03
LEAST_SNR = 30.0


def stars_of(objects: Table) -> Table:
    """Pick the stars whose colours are good enough to see the locus.

    Parameters
    ----------
    objects
        The object table: fluxes and errors in g, r, i (nJy), refExtendedness, detect_isPrimary.

    Returns
    -------
    astropy.table.Table
        Columns g_r, r_i (mag) and snr (in r).
    """
    fluxes = {band: numbers(objects, f"{band}_psfFlux") for band in "gri"}
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = {band: flux / numbers(objects, f"{band}_psfFluxErr") for band, flux in fluxes.items()}
        magnitude = {band: 31.4 - 2.5 * np.log10(flux) for band, flux in fluxes.items()}
        colours = Table(
            {"g_r": magnitude["g"] - magnitude["r"], "r_i": magnitude["r"] - magnitude["i"], "snr": snr["r"]}
        )
    unresolved = np.abs(numbers(objects, "refExtendedness")) < MOST_EXTENDED
    bright = np.minimum.reduce([snr["g"], snr["r"], snr["i"]]) > LEAST_SNR
    return rows_where(colours, unresolved, bright, np.asarray(objects["detect_isPrimary"], bool))


@styled
def stellar_locus(stars: Table, width: Measurement | None = None) -> Figure:
    """Draw colours of stars, and their distance from the locus.

    Parameters
    ----------
    stars
        Columns g_r, r_i, snr, as `stars_of` gives.
    width
        The measured wPerp, to be named.
    """
    figure, ((colours, across),) = canvas(
        "Stellar locus", 1, 2, width=9.2, height=4.4, width_ratios=[1.35, 1], subtitle=_selection(stars)
    )
    g_r, r_i = numbers(stars, "g_r"), numbers(stars, "r_i")
    used = (g_r > BLUE_PART[0]) & (g_r < BLUE_PART[1])
    size = 30 / np.sqrt(1 + len(stars) / 200)
    colours.scatter(g_r[~used], r_i[~used], s=size, color=FAINT, alpha=0.6, linewidths=0)
    colours.scatter(g_r[used], r_i[used], s=size, color=ACCENT, alpha=0.7, linewidths=0)
    ends = np.array(BLUE_PART)
    colours.plot(ends, SLOPE * ends + INTERCEPT, color=WARNING, label="r−i = 0.483 (g−r) − 0.042")
    colours.set(xlabel="g − r [mag]", ylabel="r − i [mag]", xlim=_limits(g_r, -0.1, 1.3), ylim=_limits(r_i, -0.2, 0.8))
    colours.legend(loc="upper left")
    distance = (r_i - SLOPE * g_r - INTERCEPT)[used] / np.hypot(1, SLOPE) * 1000
    across.hist(distance, bins=np.arange(-100, 101, 8.0), color=ACCENT, alpha=0.75)
    across.axvline(0, color=WARNING)
    across.set(xlabel="distance from the line [mmag]", ylabel="stars", xlim=(-100, 100))
    if width is not None:
        across.set_title(f"{width.metric} {number_text(width.value, width.unit)}", color=INK)
    return figure


def _limits(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Widen usual limits so that nearly all values are within."""
    if not len(values):
        return low, high
    least, most = np.percentile(values, (0.5, 99.5))
    return min(low, float(least) - 0.1), max(high, float(most) + 0.1)


def _selection(stars: Table) -> str:
    return f"{len(stars):,} unresolved objects with S/N > {LEAST_SNR:.0f} in g, r, i"


def _draw(tract: ReleaseTract) -> Figure:
    fluxes = [f"{band}_{column}" for band in "gri" for column in ("psfFlux", "psfFluxErr")]
    objects = tract.table("object", [*fluxes, "refExtendedness", "detect_isPrimary"])
    width = next((m for m in tract.metrics if m.metric.startswith("wPerp") and m.value is not None), None)
    return stellar_locus(stars_of(objects), width)


RECIPES = (
    Recipe(
        "stellar_locus",
        "Stellar locus",
        "Colours of stars lie along a narrow line; a shift means a wrong zero point, a broad one noisy photometry.",
        "object",
        _draw,
    ),
)
