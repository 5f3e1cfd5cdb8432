"""What was found of what was there: completeness and purity by magnitude, and of difference imaging by S/N.

Belongs here: figures of the truth metrics' rows. Doesn't: truth tables, which only the simulator and the validation
step's truth metrics read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.figures.inputs import InputMissing, ReleaseTract
from validation.figures.recipe import Recipe
from validation.figures.style import FAINT, INK, band_colour, band_marker, bands_in, canvas, styled
from validation.metrics import Measurement

_NUMBER = r"(\d+(?:\.\d+)?)"
_BIN = re.compile(rf"{_NUMBER}\s*(?:-|–|…|_|to)\s*{_NUMBER}")


@dataclass(frozen=True, slots=True)
class Bin:
    """A fraction of what lies between two magnitudes, or two S/N."""

    kind: str
    band: str
    low: float
    high: float
    fraction: float
    n: int


def bins_of(measurements: Iterable[Measurement]) -> tuple[Bin, ...]:
    """Pick the metrics that are fractions in a bin, such as ``completeness 22.0-22.5``.

    Parameters
    ----------
    measurements
        Of any kind; what could not be measured, or is in no bin, is left out.

    Returns
    -------
    tuple of Bin
        ``kind`` is the metric's name without the bin; fractions between 0 and 1, of percentages too.
    """
    bins = []
    for m in measurements:
        match = _BIN.search(m.metric)
        if match and m.value is not None:
            kind = _BIN.sub("", m.metric).strip(" _-[]()@:")
            fraction = m.value / 100 if m.unit == "%" else m.value
            bins.append(Bin(kind, m.band, float(match[1]), float(match[2]), fraction, m.n))
    return tuple(sorted(bins, key=lambda b: (b.kind, b.band, b.low)))


@styled
def completeness_and_purity(bins: Iterable[Bin], limits: Iterable[Measurement] = ()) -> Figure:
    """Draw each kind of fraction in a panel, a line a band, with binomial errors.

    Parameters
    ----------
    bins
        As `bins_of` gives, at least one.
    limits
        Magnitudes to mark, such as m50 and m90.
    """
    bins, limits = tuple(bins), tuple(limits)
    kinds = sorted({b.kind for b in bins})
    figure, (panels,) = canvas("Found of what was there", 1, len(kinds), width=4.6 * len(kinds) + 0.4, height=3.9)
    for axes, kind in zip(panels, kinds, strict=True):
        mine = [b for b in bins if b.kind == kind]
        for band in bands_in(b.band for b in mine):
            _draw_band(axes, [b for b in mine if b.band == band], band)
        of_difference = "dia" in kind.lower()
        if not of_difference:
            _mark(axes, limits)
        axes.axhline(1, color=FAINT, linewidth=0.8)
        axes.set(ylim=(-0.03, 1.08), xlabel="S/N" if of_difference else "true magnitude [AB mag]", title=kind)
        axes.set_ylabel("fraction")
        if any(b.band for b in mine):
            axes.legend(title="band", loc="lower right" if of_difference else "lower left", fontsize=8)
    return figure


def _draw_band(axes: Axes, bins: list[Bin], band: str) -> None:
    centres = np.array([(b.low + b.high) / 2 for b in bins])
    fractions = np.array([b.fraction for b in bins])
    low, high = _binomial_range(fractions, np.array([b.n for b in bins]))
    axes.errorbar(
        centres,
        fractions,
        yerr=(np.maximum(fractions - low, 0), np.maximum(high - fractions, 0)),
        fmt=band_marker(band) + "-",
        color=band_colour(band),
        elinewidth=1,
        label=band or None,
    )


def _binomial_range(fraction: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give Wilson's interval of one sigma; without n there is none."""
    n = np.where(n > 0, n, np.inf)
    centre = (fraction + 0.5 / n) / (1 + 1 / n)
    half = np.sqrt(fraction * (1 - fraction) / n + 0.25 / n**2) / (1 + 1 / n)
    return centre - half, centre + half


def _mark(axes: Axes, limits: Iterable[Measurement]) -> None:
    for limit in limits:
        if limit.value is not None:
            axes.axvline(limit.value, color=band_colour(limit.band), linestyle=":", linewidth=1)
            name = f"{limit.metric} {limit.band}".strip()
            axes.annotate(name, (limit.value, 1.02), rotation=90, va="top", ha="right", fontsize=7, color=INK)


def _draw(tract: ReleaseTract) -> Figure:
    bins = bins_of(tract.metrics)
    if not bins:
        raise InputMissing("no metric of tract is a completeness or purity in a bin of magnitude or S/N")
    return completeness_and_purity(bins, [m for m in tract.metrics if re.fullmatch(r"m(50|90).*", m.metric)])


RECIPES = (
    Recipe(
        "completeness_and_purity",
        "Completeness and purity",
        "Where the curves fall is the depth; a bright end below one is a fault of detection or deblending.",
        "truth_metrics",
        _draw,
    ),
)
