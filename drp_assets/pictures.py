"""Pictures for the checks of a step's products: the figure behind a URL, a thumbnail of it beside the numbers.

Belongs here: which product's check shows which figure. Doesn't: drawing (`validation.figures`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from drp_assets.keys import ProductAsset
from planning.pipeline import Sharding, Step
from planning.release import Release
from resources.butler import open_butler
from resources.site import Site

_FIGURE_OF = {"deep_coadd": "deep_coadd_bands"}
"""Products whose check shows a figure as soon as they exist; the report has all the others."""

_PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def figures_folder(site: Site, release: Release, tract: str) -> Path:
    """Give the folder of a tract's figures.

    Parameters
    ----------
    site, release
        Whose reports.
    tract
        The tract's number.
    """
    return site.reports / release.name / "figures" / f"tract-{tract}"


def pictures_of(
    site: Site, release: Release, step: Step, assets: Sequence[ProductAsset], tracts: Sequence[str]
) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Draw what the checks of a step show.

    Parameters
    ----------
    site, release
        Where, what for.
    step
        The step that has just run; only those by tract have pictures.
    assets
        Its assets.
    tracts
        Partition keys.

    Returns
    -------
    metadata
        By dataset type and tract: a thumbnail, and the figure's address.
    """
    wanted = sorted({_FIGURE_OF[asset.dataset_type] for asset in assets if asset.dataset_type in _FIGURE_OF})
    if step.sharding is not Sharding.TRACT or not wanted:
        return {}
    from validation.figures.registry import draw

    butler = open_butler(site.butler)
    pictures: dict[tuple[str, str], Mapping[str, Any]] = {}
    for tract in tracts:
        folder = figures_folder(site, release, tract)
        index = draw(
            butler,
            release.chain,
            int(tract),
            folder,
            skymap=release.skymap,
            instrument=release.instrument,
            only=wanted,
        )
        for figure in index.drawn:
            pictures[figure.product, tract] = {
                "picture": dg.MetadataValue.md(f"![{figure.title}]({_inline(folder / figure.thumbnail)})"),
                "figure": link(site, folder / figure.file),
            }
    return pictures


def link(site: Site, path: Path) -> dg.MetadataValue:
    """Point at a file of the reports folder: by URL where the site serves it.

    Parameters
    ----------
    site
        Its `reports_url`, if it has one, serves the reports folder.
    path
        A file in that folder.
    """
    if site.reports_url is None:
        return dg.MetadataValue.path(str(path))
    return dg.MetadataValue.url(f"{site.reports_url.rstrip('/')}/{path.relative_to(site.reports).as_posix()}")


def _inline(thumbnail: Path) -> str:
    content = base64.b64encode(thumbnail.read_bytes()).decode()
    return f"data:{_PICTURE_TYPES[thumbnail.suffix]};base64,{content}"
