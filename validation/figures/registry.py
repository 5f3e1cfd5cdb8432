"""All figures of a release's tract, drawn into a folder with an index.

Belongs here: the list of families, drawing them one after another, and saying why one was skipped. Doesn't: any figure.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from lsst.daf.butler import Butler

from resources.errors import Rejected
from validation.figures import coadds, difference, psf, residuals, stellar_locus, timeline, truth
from validation.figures.inputs import InputMissing, ReleaseTract
from validation.figures.recipe import Recipe
from validation.figures.style import save

RECIPES: tuple[Recipe, ...] = (
    *coadds.RECIPES,
    *stellar_locus.RECIPES,
    *residuals.RECIPES,
    *psf.RECIPES,
    *truth.RECIPES,
    *difference.RECIPES,
    *timeline.RECIPES,
)
"""Every figure, in the order in which the report shows them."""

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


def draw(
    butler: Butler,
    collection: str,
    tract: int,
    folder: Path,
    *,
    skymap: str | None = None,
    instrument: str | None = None,
    only: Collection[str] | None = None,
) -> FigureIndex:
    """Draw the figures of a release's tract, as far as its products go.

    Parameters
    ----------
    butler
        Of the repository.
    collection
        The release's chain.
    tract
        Which tract.
    folder
        Where ``<name>.png``, ``<name>.thumbnail.png`` (or ``.jpg``) and ``index.json`` are written; what was there
        under these names is replaced.
    skymap, instrument
        Of the release; may be left out where the repository has one of each.
    only
        Names of figures; all if None.

    Returns
    -------
    FigureIndex
        What was drawn and what was skipped for which reason.

    Raises
    ------
    resources.errors.Rejected
        ``only`` names a figure that doesn't exist, or skymap or instrument has to be named.
    """
    unknown = set(only or ()) - {recipe.name for recipe in RECIPES}
    if unknown:
        raise Rejected(f"no such figure: {', '.join(sorted(unknown))}", "only", f"known: {', '.join(figure_names())}")
    source = ReleaseTract(
        butler,
        collection,
        skymap or _the_only(butler, "skymap"),
        tract,
        instrument or _the_only(butler, "instrument"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[DrawnFigure] = []
    skipped: list[SkippedFigure] = []
    for recipe in RECIPES:
        if only is not None and recipe.name not in only:
            continue
        try:
            picture = save(recipe.draw(source), folder, recipe.name)
        except InputMissing as reason:
            skipped.append(SkippedFigure(recipe.name, recipe.title, recipe.product, str(reason)))
            continue
        files = picture.path.name, picture.thumbnail.name
        drawn.append(DrawnFigure(recipe.name, recipe.title, recipe.caption, recipe.product, *files))
    index = FigureIndex(folder, tuple(drawn), tuple(skipped))
    _write(index)
    return index


def figure_names() -> tuple[str, ...]:
    """Give the names of all figures."""
    return tuple(recipe.name for recipe in RECIPES)


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


def _write(index: FigureIndex) -> None:
    content = {"drawn": [asdict(f) for f in index.drawn], "skipped": [asdict(f) for f in index.skipped]}
    (index.folder / INDEX_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _the_only(butler: Butler, dimension: str) -> str:
    names = [str(record.dataId[dimension]) for record in butler.query_dimension_records(dimension, explain=False)]
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise Rejected(f"the repository has not one {dimension} but: {found}", dimension, "name one")
    return names[0]
