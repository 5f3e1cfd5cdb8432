"""What was found of what was there, and how well it was measured: the truth metrics that come in bins.

Belongs here: completeness by magnitude, of difference imaging by S/N, and flux pulls by magnitude. Doesn't: truth
tables, which only the simulator and the validation step's truth metrics read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.bands import bands_in
from validation.figures.inputs import InputMissing
from validation.figures.recipe import Recipe
from validation.figures.style import ACCENT, FAINT, band_colour, band_legend, band_marker, canvas, styled
from validation.metrics import Measurement
from validation.rendering import number_text

_BIN = re.compile(r"(?P<kind>[A-Za-z]\w*?)_(?P<low>\d+(?:\.\d+)?)(?:_(?P<high>\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Panel:
    """How one kind of binned metric is shown."""

    title: str
    x_label: str
    y_label: str
    good: tuple[float, float]
    """Range of values that is shaded as good."""
    is_share: bool = False


PANELS: Mapping[str, Panel] = MappingProxyType(
    {
        "completeness": Panel("Stars with an object", "true magnitude [AB mag]", "share [%]", (90, 100), True),
        "diaCompleteness": Panel("Transients with a DiaSource", "S/N of the change", "share [%]", (95, 100), True),
        "fluxPullSigma": Panel(
            "Scatter of flux pulls", "true magnitude [AB mag]", "σ of (f − f true) / error", (0.9, 1.3)
        ),
        "fluxPullMedian": Panel(
            "Median flux pull", "true magnitude [AB mag]", "median of (f − f true) / error", (-0.5, 0.5)
        ),
    }
)
"""What is shown of each kind, in this order."""

_LEAST_WIDTH = 4.0
"""Of a panel, in magnitudes or S/N."""

LIMITS: Mapping[str, float] = MappingProxyType({"m50": 50.0, "m90": 90.0})
"""Metrics that are a magnitude at which the completeness has a value, in per cent."""


@dataclass(frozen=True, slots=True)
class BinnedValue:
    """A metric of what lies between two magnitudes, or two S/N; without ``high`` the bin is open."""

    kind: str
    band: str
    low: float
    high: float | None
    value: float
    n: int

    @property
    def centre(self) -> float:
        """Where it is drawn; an open bin at its lower edge."""
        return self.low if self.high is None else (self.low + self.high) / 2


def binned(measurements: Iterable[Measurement]) -> tuple[BinnedValue, ...]:
    """Pick the metrics that come in bins, such as ``fluxPullSigma_20_22`` or ``diaCompleteness_12``.

    Parameters
    ----------
    measurements
        Of any kind; what couldn't be measured, or isn't one of `PANELS`, is left out.

    Returns
    -------
    tuple of BinnedValue
        By kind, band and bin.
    """
    found = []
    for m in measurements:
        match = _BIN.fullmatch(m.metric)
        if match and m.value is not None and match["kind"] in PANELS:
            high = float(match["high"]) if match["high"] else None
            found.append(BinnedValue(match["kind"], m.band, float(match["low"]), high, m.value, m.n))
    return tuple(sorted(found, key=lambda b: (b.kind, b.band, b.low)))


@styled
def truth_comparison(bins: Iterable[BinnedValue], measurements: Iterable[Measurement] = ()) -> Figure:
    """Draw each kind of binned metric in a panel, a line a band.

    Parameters
    ----------
    bins
        As `binned` gives.
    measurements
        Others, from which completeness limits and the numbers in the subtitle are taken.

    Raises
    ------
    validation.figures.inputs.InputMissing
        There is nothing to draw.
    """
    bins, measurements = tuple(bins), tuple(measurements)
    limits = [m for m in measurements if m.metric in LIMITS and m.value is not None]
    kinds = [k for k in PANELS if any(b.kind == k for b in bins) or (k == "completeness" and limits)]
    if not kinds:
        raise InputMissing("no truth metric comes in bins of magnitude or S/N")
    figure, (panels,) = canvas(
        "Measured against truth", 1, len(kinds), width=3.3 * len(kinds) + 0.6, height=3.7, subtitle=""
    )
    for axes, kind in zip(panels, kinds, strict=True):
        panel, mine = PANELS[kind], [b for b in bins if b.kind == kind]
        axes.axhspan(*panel.good, color=ACCENT, alpha=0.1, linewidth=0)
        for band in bands_in(b.band for b in mine):
            _draw_line(axes, [b for b in mine if b.band == band], band, panel)
        if kind == "completeness":
            _draw_limits(axes, limits)
        if panel.is_share:
            axes.set_ylim(-4, 106)
        left, right = axes.get_xlim()
        widen = max(0.0, _LEAST_WIDTH - (right - left)) / 2
        axes.set_xlim(left - widen, right + widen)
        axes.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
    band_legend(figure, [b for b in (*(b.band for b in bins), *(m.band for m in limits)) if b])
    said = _numbers(measurements)
    if said:
        figure.supxlabel(said, x=0.01, ha="left", fontsize=9, color=FAINT)
    return figure


def _draw_line(axes: Axes, bins: list[BinnedValue], band: str, panel: Panel) -> None:
    centres = np.array([b.centre for b in bins])
    values = np.array([b.value for b in bins])
    errors = None
    if panel.is_share:
        low, high = _binomial_range(values / 100, np.array([b.n for b in bins]))
        errors = np.maximum([values - 100 * low, 100 * high - values], 0)
    axes.errorbar(centres, values, yerr=errors, fmt=band_marker(band) + "-", color=band_colour(band), elinewidth=1)


def _draw_limits(axes: Axes, limits: list[Measurement]) -> None:
    for band in bands_in(m.band for m in limits):
        points = sorted((m.value, LIMITS[m.metric]) for m in limits if m.band == band and m.value is not None)
        axes.plot(
            *zip(*points, strict=True), band_marker(band), color=band_colour(band), fillstyle="none", markersize=7
        )
    for level in LIMITS.values():
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle=":")


def _binomial_range(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give Wilson's interval of one sigma; without n there is none."""
    n = np.where(n > 0, n, np.inf)
    centre = (share + 0.5 / n) / (1 + 1 / n)
    half = np.sqrt(np.clip(share * (1 - share), 0, None) / n + 0.25 / n**2) / (1 + 1 / n)
    return centre - half, centre + half


def _numbers(measurements: Iterable[Measurement]) -> str:
    wanted = {
        "completenessSn10": "complete at S/N 10",
        "purity": "pure",
        "diaCompleteness": "of transients above S/N 6",
        "diaBogusPerDetector": "bogus DiaSources a detector",
    }
    found = {m.metric: m for m in measurements if m.metric in wanted and not m.band and m.value is not None}
    return ",  ".join(
        f"{number_text(found[k].value, found[k].unit)} {said}" for k, said in wanted.items() if k in found
    )


RECIPES = (
    Recipe(
        "truth_comparison",
        "Measured against truth",
        "Open markers: magnitudes of 90 and 50 % completeness. A bright end below 100 % is a fault of detection or"
        " deblending; pulls wider than one mean errors too small.",
        "truth_metrics",
        lambda tract: truth_comparison(binned(tract.metrics), tract.metrics),
    ),
)
