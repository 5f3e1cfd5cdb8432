"""All figures of a release's tract, drawn into a folder with an index.

Belongs here: the list of families, drawing them one after another, and saying why one was skipped. Doesn't: any figure.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lsst.daf.butler import Butler

from resources.errors import Rejected
from validation.figures import coadds, difference, psf, residuals, stellar_locus, timeline, truth
from validation.figures.index import DrawnFigure, FigureIndex, SkippedFigure, write_index
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
    write_index(index)
    return index


def figure_names() -> tuple[str, ...]:
    """Give the names of all figures."""
    return tuple(recipe.name for recipe in RECIPES)


def _the_only(butler: Butler, dimension: str) -> str:
    names = [str(record.dataId[dimension]) for record in butler.query_dimension_records(dimension, explain=False)]
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise Rejected(f"the repository has not one {dimension} but: {found}", dimension, "name one")
    return names[0]
