"""The sky cut into tracts and patches, without ``lsst.skymap``.

A tract is a square in a tangent plane, its pixels numbered from the lower left; a patch is a square of it, known by
its inner box (the inner boxes tile the tract) and its outer box (grown by the border, cut at the tract's edge).

Belongs here: the geometry of a skymap, and its registration in a Butler. Doesn't: images on it (`drp_tasks.make_warp`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import lsst.images as li
import numpy as np
from astropy.wcs import WCS
from lsst.daf.butler import Butler, CollectionType, DatasetType
from lsst.sphgeom import ConvexPolygon

from drp_tasks.camera import PIXEL_SCALE_ARCSEC
from drp_tasks.raw_formatter import sky_polygon

SKYMAP_DATASET_TYPE = "skyMap"


@dataclass(frozen=True, slots=True)
class TangentSkyMap:
    """Square tracts in tangent planes, each cut into a grid of square patches.

    Parameters
    ----------
    name
        Name of the skymap in data IDs.
    tract_centres
        Right ascension and declination of each tract's centre, in degrees; the index is the tract's id.
    patches_x, patches_y
        Patches along each axis of a tract; patch ids count along x first.
    patch_px
        Side of a patch's inner box in pixels.
    border_px
        Width by which the outer box is larger than the inner one on each side.
    scale_arcsec
        Size of a pixel.
    """

    name: str
    tract_centres: tuple[tuple[float, float], ...]
    patches_x: int = 2
    patches_y: int = 2
    patch_px: int = 828
    border_px: int = 30
    scale_arcsec: float = PIXEL_SCALE_ARCSEC

    @property
    def patch_count(self) -> int:
        """Number of patches in a tract."""
        return self.patches_x * self.patches_y

    @property
    def tract_box(self) -> li.Box:
        """Box of a whole tract, in tract pixels."""
        return li.Box.factory[0 : self.patches_y * self.patch_px, 0 : self.patches_x * self.patch_px]

    def wcs(self, tract: int = 0) -> WCS:
        """WCS of a tract, from absolute tract pixels (0-based) to ICRS: the tract's centre is the tangent point."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = self.tract_centres[tract]
        wcs.wcs.crpix = [self.patches_x * self.patch_px / 2 + 0.5, self.patches_y * self.patch_px / 2 + 0.5]
        wcs.wcs.cdelt = [-self.scale_arcsec / 3600, self.scale_arcsec / 3600]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def inner_box(self, patch: int) -> li.Box:
        """Box of the pixels that belong to one patch alone, in tract pixels."""
        column, row = self.cell(patch)
        x0, y0 = column * self.patch_px, row * self.patch_px
        return li.Box.factory[y0 : y0 + self.patch_px, x0 : x0 + self.patch_px]

    def outer_box(self, patch: int) -> li.Box:
        """Box of a patch's images, in tract pixels: the inner box and its border, cut at the tract's edge."""
        return self.inner_box(patch).padded(self.border_px).intersection(self.tract_box)

    def cell(self, patch: int) -> tuple[int, int]:
        """Column and row of a patch in its tract.

        Raises
        ------
        ValueError
            If the tract has no such patch.
        """
        if not 0 <= patch < self.patch_count:
            raise ValueError(
                f"Skymap {self.name} has patches 0 to {self.patch_count - 1} a tract; there is no {patch}."
            )
        row, column = divmod(patch, self.patches_x)
        return column, row

    def contains(self, patch: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points belong to the patch: in its inner box, edges counted once over all patches.

        Parameters
        ----------
        patch
            Id of the patch.
        x, y
            Tract pixel coordinates, of any shape.

        Returns
        -------
        inside : `numpy.ndarray` of `bool`
            The shape of ``x``.
        """
        column, row = self.cell(patch)
        # A pixel's centre has whole coordinates, so the boxes' edges lie half a pixel below them.
        return (np.floor((np.asarray(x) + 0.5) / self.patch_px) == column) & (
            np.floor((np.asarray(y) + 0.5) / self.patch_px) == row
        )

    def tract_region(self, tract: int = 0) -> ConvexPolygon:
        """Region of the sky that a tract covers."""
        return self._region(tract, self.tract_box)

    def patch_region(self, tract: int, patch: int) -> ConvexPolygon:
        """Region of the sky that a patch's outer box covers."""
        return self._region(tract, self.outer_box(patch))

    def to_dict(self) -> dict[str, Any]:
        """Parameters as plain values, for the dataset ``skyMap``."""
        return {**asdict(self), "tract_centres": [list(centre) for centre in self.tract_centres]}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Self:
        """Rebuild a skymap from what `to_dict` gave."""
        centres = tuple((float(ra), float(dec)) for ra, dec in parameters["tract_centres"])
        return cls(**{**parameters, "tract_centres": centres})

    @property
    def sha1(self) -> bytes:
        """Digest of the parameters, by which the Butler tells two skymaps of one name apart."""
        return hashlib.sha1(json.dumps(self.to_dict(), sort_keys=True).encode(), usedforsecurity=False).digest()

    def _region(self, tract: int, box: li.Box) -> ConvexPolygon:
        left, right = box.x.start - 0.5, box.x.stop - 0.5
        bottom, top = box.y.start - 0.5, box.y.stop - 0.5
        ra, dec = self.wcs(tract).pixel_to_world_values([left, right, right, left], [bottom, bottom, top, top])
        return sky_polygon(ra, dec)


def register_skymap(butler: Butler, skymap: TangentSkyMap, run: str = "skymaps") -> None:
    """Insert a skymap's dimension records and put it as dataset ``skyMap``; twice does no more than once.

    Parameters
    ----------
    butler
        Writeable Butler.
    skymap
        What to register.
    run
        RUN collection for the dataset; made if it is not there.

    Raises
    ------
    lsst.daf.butler.registry.ConflictingDefinitionError
        If another skymap has that name.
    """
    registry = butler.registry
    registry.registerDatasetType(
        DatasetType(SKYMAP_DATASET_TYPE, ("skymap",), "StructuredDataDict", universe=butler.dimensions)
    )
    butler.collections.register(run, CollectionType.RUN)
    with registry.transaction():
        registry.syncDimensionData(
            "skymap",
            {
                "name": skymap.name,
                "hash": skymap.sha1,
                "tract_max": len(skymap.tract_centres),
                "patch_nx_max": skymap.patches_x,
                "patch_ny_max": skymap.patches_y,
            },
        )
        tracts = range(len(skymap.tract_centres))
        registry.insertDimensionData(
            "tract",
            *({"skymap": skymap.name, "id": tract, "region": skymap.tract_region(tract)} for tract in tracts),
            skip_existing=True,
        )
        registry.insertDimensionData(
            "patch",
            *(_patch_row(skymap, tract, patch) for tract in tracts for patch in range(skymap.patch_count)),
            skip_existing=True,
        )
    if butler.find_dataset(SKYMAP_DATASET_TYPE, skymap=skymap.name, collections=run) is None:
        butler.put(skymap.to_dict(), SKYMAP_DATASET_TYPE, skymap=skymap.name, run=run)


def _patch_row(skymap: TangentSkyMap, tract: int, patch: int) -> dict[str, Any]:
    column, row = skymap.cell(patch)
    return {
        "skymap": skymap.name,
        "tract": tract,
        "id": patch,
        "cell_x": column,
        "cell_y": row,
        "region": skymap.patch_region(tract, patch),
    }
