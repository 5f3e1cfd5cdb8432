"""A day's transfers drawn: volume, rate and efficiency, hour by hour, for the busiest pairs of RSEs.

Belongs here: the one figure. Doesn't: its numbers (`arrivals.transfers`), or how figures look (`validation.figures`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arrivals.transfers import RsePair, TransferStatistics, total
from validation.figures.style import FAINT, canvas, colour_bar, styled

MOST_PAIRS = 7
"""More than these are added up as one."""

OTHERS = "all others"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56463A", "#56B4E9", "#8a8f98")
_HOURS = 24


@styled
def draw_transfers(day: str, hours: Mapping[tuple[RsePair, dt.datetime], TransferStatistics]) -> Figure:
    """Draw a day: volume and mean rate by hour, and a map of the efficiency, in which white is: no transfer ended.

    Parameters
    ----------
    day
        Its date.
    hours
        Statistics by pair of RSEs and hour.
    """
    rows = _by_row(hours)
    whole = total(hours.values())
    efficiency = "not computable" if whole.efficiency is None else f"{whole.efficiency:.1%}"
    figure, panels = canvas(
        f"Transfers of {day} (UTC)",
        3,
        1,
        width=9.6,
        height=6.0 + 0.25 * len(rows),
        sharex=True,
        height_ratios=[3, 3, 1.2 + 0.4 * len(rows)],
        subtitle=f"{whole.done:,} done, {whole.failed:,} failed (efficiency {efficiency}), {whole.bytes / 1e9:,.2f} GB",
    )
    (volume,), (rate,), (share,) = panels
    _draw_volume(volume, rows)
    _draw_rate(rate, rows)
    _draw_efficiency(figure, share, rows)
    figure.legend(*volume.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    share.set_xlabel("hour (UTC)")
    share.set_xticks(range(0, _HOURS, 3))
    share.set_xlim(-0.5, _HOURS - 0.5)
    return figure


def _by_row(
    hours: Mapping[tuple[RsePair, dt.datetime], TransferStatistics],
) -> dict[str, list[TransferStatistics]]:
    """A row of 24 hours for each of the busiest pairs, and one for all others."""
    volumes: dict[RsePair, tuple[int, int]] = {}
    for (pair, _), found in hours.items():
        size, ended = volumes.get(pair, (0, 0))
        volumes[pair] = (size + found.bytes, ended + found.done + found.failed)
    busiest = sorted((pair for pair in volumes if volumes[pair][1]), key=lambda pair: volumes[pair], reverse=True)
    rows: dict[str, list[TransferStatistics]] = {}
    for pair in busiest:
        name = str(pair) if busiest.index(pair) < MOST_PAIRS else OTHERS
        row = rows.setdefault(name, [TransferStatistics() for _ in range(_HOURS)])
        for (other, hour), found in hours.items():
            if other == pair:
                row[hour.hour] += found
    return rows


def _draw_volume(axes: Axes, rows: Mapping[str, list[TransferStatistics]]) -> None:
    below = np.zeros(_HOURS)
    for (name, row), colour in zip(rows.items(), _COLOURS, strict=False):
        volumes = np.array([found.bytes / 1e9 for found in row])
        axes.bar(range(_HOURS), volumes, 0.85, bottom=below, color=colour, label=name)
        below += volumes
    axes.set_ylabel("volume\n[GB an hour]")


def _draw_rate(axes: Axes, rows: Mapping[str, list[TransferStatistics]]) -> None:
    known = False
    for row, colour in zip(rows.values(), _COLOURS, strict=False):
        rates = [np.nan if found.rate_bytes_per_s is None else found.rate_bytes_per_s / 1e6 for found in row]
        known = known or bool(np.isfinite(rates).any())
        axes.plot(range(_HOURS), rates, "o-", color=colour)
    axes.set_ylabel("mean rate of\na transfer [MB/s]")
    if known:
        axes.set_ylim(bottom=0)
    else:
        axes.text(
            0.5, 0.5, "no event told how long a transfer took", transform=axes.transAxes, ha="center", color=FAINT
        )


def _draw_efficiency(figure: Figure, axes: Axes, rows: Mapping[str, list[TransferStatistics]]) -> None:
    shares = [[np.nan if found.efficiency is None else found.efficiency for found in row] for row in rows.values()]
    colours = mpl.colormaps["RdYlBu"].with_extremes(bad="white")
    shown = axes.imshow(np.array(shares), aspect="auto", vmin=0, vmax=1, cmap=colours, interpolation="nearest")
    axes.grid(False)
    axes.set_yticks(range(len(rows)), list(rows))
    colour_bar(figure, shown, axes, "efficiency")
