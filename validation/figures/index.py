"""What a folder of figures holds: names, words, files, and what was skipped for which reason.

Belongs here: the values, and reading and writing them as ``index.json``. Doesn't: drawing
(`validation.figures.registry`); this module imports nothing of it, so that readers start quickly.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from resources.errors import Rejected

INDEX_FILE = "index.json"


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A figure that was drawn; files are named relative to the index's folder."""

    name: str
    title: str
    caption: str
    product: str
    file: str
    thumbnail: str


@dataclass(frozen=True, slots=True)
class SkippedFigure:
    """A figure that could not be drawn, and why."""

    name: str
    title: str
    product: str
    reason: str


@dataclass(frozen=True, slots=True)
class FigureIndex:
    """What a folder of figures holds."""

    folder: Path
    drawn: tuple[DrawnFigure, ...]
    skipped: tuple[SkippedFigure, ...]

    def of_product(self, product: str) -> tuple[DrawnFigure, ...]:
        """Give the figures that tell about a product.

        Parameters
        ----------
        product
            Dataset type.
        """
        return tuple(figure for figure in self.drawn if figure.product == product)


def read_index(folder: Path) -> FigureIndex:
    """Read what `draw` left in a folder.

    Parameters
    ----------
    folder
        With an ``index.json``.

    Raises
    ------
    resources.errors.Rejected
        There is no index, or it isn't one.
    """
    path = folder / INDEX_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        drawn = tuple(DrawnFigure(**entry) for entry in content["drawn"])
        skipped = tuple(SkippedFigure(**entry) for entry in content["skipped"])
    except FileNotFoundError as error:
        raise Rejected("is missing", str(path), "draw the figures first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected("is no index of figures", str(path), "draw the figures again") from error
    return FigureIndex(folder, drawn, skipped)


def write_index(index: FigureIndex) -> None:
    """Write the index into its folder.

    Parameters
    ----------
    index
        Its folder exists.
    """
    content = {"drawn": [asdict(f) for f in index.drawn], "skipped": [asdict(f) for f in index.skipped]}
    (index.folder / INDEX_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
