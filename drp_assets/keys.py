"""Names of assets: which products an asset graph shows, and under which key.

Belongs here: the pure functions from (release, product, band) to asset keys and check names. Doesn't: what assets do.
"""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from planning.pipeline import Product, Step
from planning.release import Release

RAW = dg.AssetKey("raw")
"""The raws of a day_obs, shared by all releases."""

SITE_PRODUCTS = dg.AssetKey("arrived_products")
"""Calibrations, reference catalogues and other products that arrive; shared by all releases."""

COMPLETE = "complete"
"""Name of every product's own check."""


@dataclass(frozen=True, slots=True)
class ProductAsset:
    """One asset of a step: a product, or one band of it; a step whose products aren't known is its own asset."""

    key: dg.AssetKey
    dataset_type: str
    band: str
    product: Product | None

    @property
    def check_key(self) -> dg.AssetCheckKey:
        """The check that says whether all of it is there."""
        return dg.AssetCheckKey(self.key, COMPLETE)


def inputs_key(release: Release) -> dg.AssetKey:
    """Give the key of the raws that a release is made from.

    Parameters
    ----------
    release
        Its name is the key's prefix.
    """
    return dg.AssetKey([release.name, "inputs"])


def scorecard_key(release: Release) -> dg.AssetKey:
    """Give the key of a release's scorecard.

    Parameters
    ----------
    release
        Its name is the key's prefix.
    """
    return dg.AssetKey([release.name, "scorecard"])


def product_assets(release: Release, step: Step) -> tuple[ProductAsset, ...]:
    """Give the assets that one step makes, a band a key where a product is per band.

    Parameters
    ----------
    release
        Gives prefix and bands.
    step
        One of the plan's steps.
    """
    if not step.products:
        return (ProductAsset(dg.AssetKey([release.name, step.short]), "", "", None),)
    return tuple(
        ProductAsset(dg.AssetKey([release.name, product.name, *([band] if band else [])]), product.name, band, product)
        for product in step.products
        for band in (release.bands if product.per_band else ("",))
    )
