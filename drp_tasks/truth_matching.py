"""Truth and products paired, source by source: which true source is which object, which transient which DiaSource.

Belongs here: matching on the sky, what an image could have shown at a place.
Doesn't: the metrics of the pairs (`drp_tasks.truth_comparison`), reading either side (`drp_tasks.truth_metrics`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lsst.images as li
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drp_tasks.assemble_coadd import COADD_UNUSABLE
from drp_tasks.forced_photometry import positions_on_detector
from drp_tasks.images import AB_NANOJANSKY, UNUSABLE, start_xy, unusable, wcs_of
from drp_tasks.matching import match_sky
from drp_tasks.psf import PolynomialPsf
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.truth_comparison import BandSample, TransientSample

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]

MATCH_ARCSEC = 0.5
"""An object this near to a true source is that source."""
ISOLATION_ARCSEC = 3.0
"""A true source is isolated if none of at least half its brightness is nearer."""
TRANSIENT_MATCH_ARCSEC = 0.6
"""A DiaSource this near to a transient that shines in its visit is that transient."""
NOT_BOGUS_ARCSEC = 1.0
"""A DiaSource this near to any transient, one left in the template included, is not bogus."""
EDGE_PX = 12
"""Transients nearer to a detector's edge, where a PSF is cut, aren't expected."""


@dataclass(frozen=True, eq=False)
class CoaddImage:
    """A patch of one band: how deep it is and the size of its PSF."""

    band: str
    patch: int
    image: li.MaskedImage
    psf: PolynomialPsf


def point_source_error(
    image: li.MaskedImage, psf: PolynomialPsf, x: Floats, y: Floats, planes: Sequence[str]
) -> Floats:
    """Predict the error of a faint point source's PSF flux at places of an image.

    Parameters
    ----------
    image, psf
        The image and its PSF.
    x, y
        Absolute pixel positions (n,), on the image.
    planes
        Mask planes that make a pixel unusable.

    Returns
    -------
    error : `numpy.ndarray`
        In the image's unit; NaN on unusable pixels.
    """
    x0, y0 = start_xy(image)
    column, row = np.rint(x).astype(int) - x0, np.rint(y).astype(int) - y0
    variance = image.variance.array[row, column].astype(float)
    area = 1.0 / (psf.images_at(x, y) ** 2).sum((1, 2))
    return np.where(unusable(image, planes)[row, column], np.nan, np.sqrt(variance * area))


def match_objects(truth: Table, priority: Floats, objects: Table) -> Integers:
    """Give each object to the true source beside it, the one of highest priority if there are several.

    Returns
    -------
    index : `numpy.ndarray`
        For each true source the row of its object, or -1.
    """
    index, _ = match_sky(truth["ra"], truth["dec"], objects["ra"], objects["dec"], MATCH_ARCSEC)
    claimants = np.flatnonzero(index >= 0)
    claimants = claimants[np.argsort(-priority[claimants], kind="stable")]
    _, first = np.unique(index[claimants], return_index=True)
    result = np.full(len(truth), -1, np.int64)
    result[claimants[first]] = index[claimants[first]]
    return result


def is_isolated(x: Floats, y: Floats, brightness: Floats, radius: float) -> NDArray[np.bool_]:
    """Tell which sources have none of at least half their brightness within a radius, in the unit of x and y."""
    first, second = cKDTree(np.column_stack([x, y])).query_pairs(radius, output_type="ndarray").T
    alone = np.ones(len(x), bool)
    alone[first[brightness[second] >= 0.5 * brightness[first]]] = False
    alone[second[brightness[first] >= 0.5 * brightness[second]]] = False
    return alone


def band_samples(
    truth: Table, objects: Table, coadds: Iterable[CoaddImage], geometry: TangentSkyMap, tract: int
) -> dict[str, BandSample]:
    """Pair true sources with objects, for each band; rows are the true sources, the same in all bands.

    Parameters
    ----------
    truth
        Truth of the objects: ra, dec [deg], isStar, mag_<band>.
    objects
        Primary objects: ra, dec [deg], <band>_psfFlux, <band>_psfFluxErr [nJy], <band>_flag.
    coadds
        Deep coadds of the tract.
    geometry, tract
        Where the patches are.

    Returns
    -------
    samples : `dict` [`str`, `BandSample`]
        ``expected_error`` is NaN where the band doesn't cover the source.
    """
    x, y = geometry.wcs(tract).all_world2pix(np.asarray(truth["ra"], float), np.asarray(truth["dec"], float), 0)
    errors: dict[str, Floats] = {}
    patch = np.full(len(truth), -1, np.int64)
    for coadd in coadds:
        inside = np.flatnonzero(geometry.contains(coadd.patch, x, y))
        patch[inside] = coadd.patch
        errors.setdefault(coadd.band, np.full(len(truth), np.nan))[inside] = point_source_error(
            coadd.image, coadd.psf, x[inside], y[inside], COADD_UNUSABLE
        )
    magnitudes = {band: np.asarray(truth[f"mag_{band}"], float) for band in errors}
    ratios = [true_flux(magnitudes[band]) / error for band, error in errors.items()]
    best = np.max(np.nan_to_num(ratios), axis=0, initial=0.0)
    index = match_objects(truth, best, objects)
    isolated = is_isolated(x, y, best, ISOLATION_ARCSEC / geometry.scale_arcsec)
    samples = {}
    for band in sorted(errors):
        flux, flux_error = (_of_match(objects, f"{band}_{name}", index) for name in ("psfFlux", "psfFluxErr"))
        usable = _of_match(objects, f"{band}_flag", index) == 0
        samples[band] = BandSample(
            magnitude=magnitudes[band],
            is_star=np.asarray(truth["isStar"], bool),
            isolated=isolated,
            patch=patch,
            expected_error=errors[band],
            found=index >= 0,
            flux=np.where(usable, flux, np.nan),
            flux_error=np.where(usable, flux_error, np.nan),
        )
    return samples


def _of_match(objects: Table, column: str, index: Integers) -> Floats:
    """Values of a column at the matched rows, NaN where the index is -1."""
    values = np.append(np.asarray(objects[column], float), np.nan)
    return values[index]


@dataclass(frozen=True, eq=False)
class DifferenceImage:
    """The difference image of one detector-visit, and its PSF."""

    visit: int
    detector: int
    image: li.MaskedImage
    psf: PolynomialPsf


def transient_sample(difference: DifferenceImage, transients: Table, dia_sources: Table) -> TransientSample:
    """Pair the transients that a difference image should show with its DiaSources.

    Parameters
    ----------
    difference
        The difference image.
    transients
        Truth: id, ra, dec [deg], visit, mag, a row a visit in which the transient shines.
    dia_sources
        DiaSources of any visits: visit, detector, ra, dec [deg], psfFlux, psfFluxErr [nJy].

    Returns
    -------
    sample : `TransientSample`
        The transients that shine in the visit, on usable pixels and not at the edge.
    """
    ny, nx = difference.image.image.array.shape
    shining = transients[np.asarray(transients["visit"]) == difference.visit]
    rows, x, y = positions_on_detector(
        np.asarray(shining["ra"], float), np.asarray(shining["dec"], float), wcs_of(difference.image), (ny, nx)
    )
    inner = (np.minimum(x, nx - 1 - x) >= EDGE_PX) & (np.minimum(y, ny - 1 - y) >= EDGE_PX)
    rows, x, y = rows[inner], x[inner], y[inner]
    error = point_source_error(difference.image, difference.psf, x, y, UNUSABLE)
    rows, error = rows[np.isfinite(error)], error[np.isfinite(error)]
    here = (np.asarray(dia_sources["visit"]) == difference.visit) & (
        np.asarray(dia_sources["detector"]) == difference.detector
    )
    found = dia_sources[here]
    index, _ = match_sky(shining["ra"][rows], shining["dec"][rows], found["ra"], found["dec"], TRANSIENT_MATCH_ARCSEC)
    return TransientSample(
        flux=true_flux(np.asarray(shining["mag"], float)[rows]),
        expected_error=error,
        measured=_of_match(found, "psfFlux", index),
        measured_error=_of_match(found, "psfFluxErr", index),
    )


def count_bogus(dia_sources: Table, transients: Table) -> int:
    """Count the DiaSources that have no transient beside them, whether it shines in their visit or not."""
    index, _ = match_sky(dia_sources["ra"], dia_sources["dec"], transients["ra"], transients["dec"], NOT_BOGUS_ARCSEC)
    return int((index < 0).sum())


def true_flux(magnitude: Floats | float) -> Floats:
    """Turn AB magnitudes into nJy."""
    return np.asarray(10 ** (-0.4 * (np.asarray(magnitude, float) - AB_NANOJANSKY)))
