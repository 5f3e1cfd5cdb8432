"""How every figure looks, and how it becomes a file: one palette, one set of sizes, one way to save.

Belongs here: colours, markers, canvas, colour bars, PNG and thumbnail within their size limits. Doesn't: any content.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from validation.bands import bands_in

PICTURE_BYTES = 200_000
"""Largest picture: a report with fifty of them still opens at once."""

THUMBNAIL_BYTES = 12_000
"""Largest thumbnail: it is kept in Dagster's event log."""

BAND_COLOURS: Mapping[str, str] = MappingProxyType(
    {"u": "#0072B2", "g": "#009E73", "r": "#D55E00", "i": "#CC79A7", "z": "#B8860B", "y": "#56463A"}
)
"""Okabe and Ito's colour-blind-safe palette, in the bands' order."""

BAND_MARKERS: Mapping[str, str] = MappingProxyType({"u": "o", "g": "^", "r": "s", "i": "D", "z": "v", "y": "P"})
"""A marker a band, so that none is told by its colour alone."""

INK = "#222222"
FAINT = "#8a8f98"
ACCENT = "#0072B2"
WARNING = "#D55E00"
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

_STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": FAINT,
        "axes.formatter.useoffset": False,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.labelsize": 10,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "figure.facecolor": "white",
        "figure.titlesize": 12.5,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "grid.color": "#e4e6ea",
        "grid.linewidth": 0.7,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 4.5,
        "text.color": INK,
        "xtick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.color": FAINT,
        "ytick.labelcolor": INK,
    }
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as files."""

    path: Path
    thumbnail: Path


def styled[**P, R](draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in the house's style, whatever the process's settings are.

    Parameters
    ----------
    draw
        Makes or saves figures.
    """

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(), warnings.catch_warnings():
            # An all-NaN column is an empty panel, not something to warn a terminal about.
            warnings.simplefilter("ignore", RuntimeWarning)
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return in_style


def canvas(
    title: str,
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = 8.0,
    height: float = 4.5,
    subtitle: str = "",
    **grid: Any,
) -> tuple[Figure, np.ndarray]:
    """Make an empty figure, without matplotlib's global state.

    Parameters
    ----------
    title
        What it shows, in a few words.
    rows, columns
        Of panels.
    width, height
        Inches.
    subtitle
        Selection and numbers, in small print under the title.
    **grid
        More for `matplotlib.figure.Figure.subplots`, such as ``sharex``.

    Returns
    -------
    figure, axes
        Axes always in an array (rows, columns).
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    if subtitle:
        axes[0, 0].set_title(subtitle, fontsize=9, color=FAINT)
    return figure, axes


def band_colour(band: str) -> str:
    """Give a band's colour; ink for none of the six.

    Parameters
    ----------
    band
        Lower case.
    """
    return BAND_COLOURS.get(band, INK)


def band_marker(band: str) -> str:
    """Give a band's marker.

    Parameters
    ----------
    band
        Lower case.
    """
    return BAND_MARKERS.get(band, "o")


def band_legend(figure: Figure, bands: Iterable[str]) -> None:
    """Name the bands' markers in the upper right corner of the figure, outside its panels.

    Parameters
    ----------
    figure
        Whose panels use `band_colour` and `band_marker`.
    bands
        Those shown.
    """
    marks = [
        Line2D([], [], color=band_colour(band), marker=band_marker(band), linestyle="", label=band)
        for band in bands_in(bands)
    ]
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), columnspacing=0.9, handletextpad=0.1)


def picture_panel(axes: Axes) -> None:
    """Make a panel show an image or map: no grid, no ticks, square pixels.

    Parameters
    ----------
    axes
        The panel.
    """
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def colour_bar(figure: Figure, shown: ScalarMappable, axes: Any, label: str) -> Colorbar:
    """Add a slim colour bar.

    Parameters
    ----------
    figure
        Of the panel.
    shown
        The image or mesh.
    axes
        The panel or panels it stands beside.
    label
        Quantity and unit.
    """
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


@styled
def save(figure: Figure, folder: Path, name: str) -> Picture:
    """Write a figure as PNG and as a thumbnail, both within their size limits.

    Parameters
    ----------
    figure
        To be written.
    folder
        Made if missing.
    name
        Stem of the files ``<name>.png`` and ``<name>.thumbnail.<png or jpg>``.

    Returns
    -------
    Picture
        Where they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    full = Image.open(buffer).convert("RGB")
    path = folder / f"{name}.png"
    path.write_bytes(_within(full, PICTURE_BYTES, (_as_drawn, _with_palette)))
    small = full.copy()
    small.thumbnail((320, 240), Image.Resampling.LANCZOS)
    content = _within(small, THUMBNAIL_BYTES, (_with_palette, _as_photograph))
    suffix = "png" if content.startswith(b"\x89PNG") else "jpg"
    thumbnail = folder / f"{name}.thumbnail.{suffix}"
    thumbnail.write_bytes(content)
    return Picture(path, thumbnail)


def _within(image: Image.Image, limit: int, encoders: Iterable[Callable[[Image.Image], bytes]]) -> bytes:
    """Encode an image by the first way that fits, in ever smaller sizes until one does."""
    ways = tuple(encoders)
    while True:
        for encode in ways:
            content = encode(image)
            if len(content) <= limit:
                return content
        # Bytes go with the area; aim a little below the limit so that one step usually does.
        shrink = min(0.95, 0.97 * (limit / len(content)) ** 0.5)
        size = max(1, int(image.width * shrink)), max(1, int(image.height * shrink))
        image = image.resize(size, Image.Resampling.LANCZOS)


def _as_drawn(image: Image.Image) -> bytes:
    return _encoded(image, "PNG")


def _with_palette(image: Image.Image) -> bytes:
    return _encoded(image.quantize(256, dither=Image.Dither.NONE), "PNG", optimize=True)


def _as_photograph(image: Image.Image) -> bytes:
    return _encoded(image, "JPEG", quality=80, optimize=True)


def _encoded(image: Image.Image, encoding: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=encoding, **options)
    return buffer.getvalue()
