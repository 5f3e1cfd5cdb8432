"""Isolated stars of a tract: bright unresolved sources of all visits that are the same star, far from any other.

Belongs here: linking sources to stars, what isolated and unresolved mean, and the stars' reference-catalogue partners.
Doesn't: fits to these stars (`drp_tasks.global_photometry`, `drp_tasks.global_astrometry`), or objects of a coadd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table, vstack
from lsst.pipe.base import connectionTypes as ct
from lsst.sphgeom import Region
from numpy.typing import NDArray

from drp_tasks.matching import link_friends, match_sky, neighbour_distance, sky_position, unit_vectors

type Integers = NDArray[np.int64]

STARS_PER_TRACT = 10**9
"""Ids of a tract's stars start at the tract's id times this."""


@dataclass(frozen=True, slots=True)
class IsolationCriteria:
    """What makes sources of several visits one isolated star."""

    signal_to_noise: float = 20.0
    """Fainter sources are neither members nor neighbours."""
    linking_arcsec: float = 0.5
    """Sources closer than this are friends."""
    isolation_arcsec: float = 2.0
    """No other group may be nearer."""
    extendedness: float = 0.06
    """Largest modulus of a star's median extendedness, in magnitudes."""
    min_sources: int = 2
    """Sources that make a star."""
    psf_chi2: float = 1.5
    """Largest reduced chi² of a member's PSF fit, as far as noise alone makes it."""
    psf_error: float = 0.012
    """Relative error of the PSF model that bright members may show beyond that."""


def associate_isolated_stars(sources: Table, criteria: IsolationCriteria, first_id: int = 0) -> tuple[Table, Table]:
    """Link sources to stars, and keep the stars that are unresolved and isolated.

    A group with two sources of one visit is a blend and is dropped. Flagged sources, and those that the PSF doesn't fit
    (hit by a cosmic ray, beside a transient), count as neighbours, never as members. The result does not depend on the
    order of the sources: stars are numbered by their smallest sourceId.

    Parameters
    ----------
    sources
        Sources of any visits, with columns sourceId, visit, band, ra, dec [deg], psfFlux, psfFluxErr, psfChi2,
        extendedness [mag] and flag.
    criteria
        What makes an isolated star.
    first_id
        Id of the first star.

    Returns
    -------
    members
        The rows of ``sources`` that belong to a star, sorted by (isolatedStarId, sourceId), with that column in front.
    stars
        One row a star: isolatedStarId, ra, dec [deg] (mean weighted by S/N², at most 200²), nSource, nSource_<band>.
    """
    signal_to_noise = np.asarray(sources["psfFlux"], float) / np.asarray(sources["psfFluxErr"], float)
    position = unit_vectors(sources["ra"], sources["dec"])
    bright = (signal_to_noise > criteria.signal_to_noise) & np.isfinite(position).all(axis=1)
    sources, position, signal_to_noise = sources[bright], position[bright], signal_to_noise[bright]
    group = link_friends(sources["ra"], sources["dec"], criteria.linking_arcsec)
    n_groups = int(group.max()) + 1 if len(group) else 0

    weight = np.minimum(signal_to_noise, 200.0) ** 2
    ra, dec = _mean_position(group, position, weight, n_groups)
    isolated = neighbour_distance(ra, dec) > criteria.isolation_arcsec
    blended = np.zeros(n_groups, bool)
    blended[_groups_with_a_visit_twice(group, np.asarray(sources["visit"]))] = True

    chi2_limit = criteria.psf_chi2 + (criteria.psf_error * signal_to_noise) ** 2
    usable = ~np.asarray(sources["flag"], bool) & (np.asarray(sources["psfChi2"], float) < chi2_limit)
    member = (isolated & ~blended)[group] & usable
    group, sources, position, weight = group[member], sources[member], position[member], weight[member]
    extendedness = _median_by_group(group, np.asarray(sources["extendedness"], float), n_groups)
    count = np.bincount(group, minlength=n_groups)
    keep = (np.abs(extendedness) < criteria.extendedness) & (count >= criteria.min_sources)

    member = keep[group]
    group, sources, position, weight = group[member], sources[member], position[member], weight[member]
    index = _number_by_smallest_id(group, np.asarray(sources["sourceId"], np.int64))
    n_stars = int(index.max()) + 1 if len(index) else 0

    members = sources.copy()
    members.add_column(first_id + index, name="isolatedStarId", index=0)
    members = members[np.lexsort((members["sourceId"], members["isolatedStarId"]))]
    ra, dec = _mean_position(index, position, weight, n_stars)
    stars = Table({"isolatedStarId": first_id + np.arange(n_stars), "ra": ra * u.deg, "dec": dec * u.deg})
    stars["nSource"] = np.bincount(index, minlength=n_stars).astype(np.int32)
    for band in sorted(set(np.asarray(sources["band"], str))):
        in_band = np.asarray(sources["band"], str) == band
        stars[f"nSource_{band}"] = np.bincount(index[in_band], minlength=n_stars).astype(np.int32)
    return members, stars


def attach_references(stars: Table, references: Table, radius_arcsec: float) -> Table:
    """Give each star the position, the magnitudes and their errors of its reference-catalogue partner.

    Parameters
    ----------
    stars
        Stars with columns ra, dec [deg].
    references
        Reference catalogue: id, ra, dec [deg], raErr, decErr [mas], and per band mag_<band>, magErr_<band>.
    radius_arcsec
        Largest separation of a match.

    Returns
    -------
    stars
        A copy with refCatId (−1 without partner), refRa, refDec [deg], refRaErr, refDecErr [mas], refMag_<band>,
        refMagErr_<band> (NaN without partner).
    """
    index, _ = match_sky(stars["ra"], stars["dec"], references["ra"], references["dec"], radius_arcsec)
    matched = index >= 0

    def partner(column: str, unit: u.UnitBase) -> u.Quantity:
        values = np.full(len(stars), np.nan)
        values[matched] = np.asarray(references[column], float)[index[matched]]
        return values * unit

    out = stars.copy()
    out["refCatId"] = np.full(len(stars), -1, np.int64)
    out["refCatId"][matched] = np.asarray(references["id"], np.int64)[index[matched]]
    out["refRa"], out["refDec"] = partner("ra", u.deg), partner("dec", u.deg)
    out["refRaErr"], out["refDecErr"] = partner("raErr", u.mas), partner("decErr", u.mas)
    for column in references.colnames:
        kind, _, band = column.partition("_")
        if kind in {"mag", "magErr"} and band:
            out[f"refM{kind[1:]}_{band}"] = partner(column, u.mag)
    return out


def inside_region(table: Table, region: Region) -> NDArray[np.bool_]:
    """Whether each row's ra, dec [deg] lies in a region of the sky."""
    longitude, latitude = np.radians(np.asarray(table["ra"], float)), np.radians(np.asarray(table["dec"], float))
    return np.asarray(region.contains(longitude, latitude), bool)


def _mean_position(
    group: Integers, position: NDArray[np.float64], weight: NDArray[np.float64], n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums = [np.bincount(group, weight * axis, minlength=n_groups) for axis in position.T]
    return sky_position(np.stack(sums, axis=-1))


def _groups_with_a_visit_twice(group: Integers, visit: NDArray[np.int64]) -> Integers:
    pairs, count = np.unique(np.stack([group, visit]), axis=1, return_counts=True)
    return pairs[0][count > 1]


def _median_by_group(group: Integers, values: NDArray[np.float64], n_groups: int) -> NDArray[np.float64]:
    medians = np.full(n_groups, np.nan)
    order = np.lexsort((values, group))
    group, values = group[order], values[order]
    present, start, count = np.unique(group, return_index=True, return_counts=True)
    medians[present] = (values[start + (count - 1) // 2] + values[start + count // 2]) / 2
    return medians


def _number_by_smallest_id(group: Integers, source_id: Integers) -> Integers:
    present, inverse = np.unique(group, return_inverse=True)
    smallest = np.full(len(present), np.iinfo(np.int64).max)
    np.minimum.at(smallest, inverse, source_id)
    rank = np.empty(len(present), np.int64)
    rank[np.argsort(smallest)] = np.arange(len(present))
    return rank[inverse]


class AssociateIsolatedStarConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Data sets of `AssociateIsolatedStarTask`."""

    sources = ct.Input(
        doc="Sources of each visit that overlaps the tract.",
        name="single_visit_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    references = ct.PrerequisiteInput(
        doc="Shards of the reference catalogue that overlap the tract.",
        name="simulated_refcat",
        storageClass="ArrowAstropy",
        dimensions=("htm7",),
        multiple=True,
        deferLoad=True,
        minimum=1,
    )
    members = ct.Output(
        doc="Sources of isolated stars: isolatedStarId and all columns of single_visit_star.",
        name="isolated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )
    stars = ct.Output(
        doc="Isolated stars: mean position, number of sources, and the reference-catalogue partner.",
        name="isolated_star_association",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class AssociateIsolatedStarConfig(pb.PipelineTaskConfig, pipelineConnections=AssociateIsolatedStarConnections):  # type: ignore[call-arg]
    """What makes an isolated star."""

    signalToNoise = pc.Field[float](doc="Sources with less S/N are ignored.", default=20.0)
    linkingRadius = pc.Field[float](doc="Sources closer than this are the same star [arcsec].", default=0.5)
    isolationRadius = pc.Field[float](doc="No other star or galaxy may be nearer [arcsec].", default=2.0)
    maxExtendedness = pc.Field[float](doc="Largest modulus of a star's median extendedness [mag].", default=0.06)
    minSources = pc.Field[int](doc="Fewest sources of a star.", default=2)
    maxPsfChi2 = pc.Field[float](doc="Largest reduced chi² of a member's PSF fit, if the PSF were exact.", default=1.5)
    psfError = pc.Field[float](doc="Relative error of the PSF that bright members may show beyond that.", default=0.012)
    referenceRadius = pc.Field[float](doc="Largest separation from a reference partner [arcsec].", default=0.5)

    @property
    def criteria(self) -> IsolationCriteria:
        """The criteria as a value."""
        return IsolationCriteria(
            signal_to_noise=self.signalToNoise,
            linking_arcsec=self.linkingRadius,
            isolation_arcsec=self.isolationRadius,
            extendedness=self.maxExtendedness,
            min_sources=self.minSources,
            psf_chi2=self.maxPsfChi2,
            psf_error=self.psfError,
        )


class AssociateIsolatedStarTask(pb.PipelineTask):
    """Associate the sources of all visits of a tract to isolated stars, and these with the reference catalogue."""

    ConfigClass = AssociateIsolatedStarConfig
    _DefaultName = "associateIsolatedStar"
    config: AssociateIsolatedStarConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the tract's visits and references, and write its isolated stars."""
        inputs = butlerQC.get(inputRefs)
        tract = butlerQC.quantum.dataId
        visits = sorted(inputs["sources"], key=lambda handle: handle.dataId["visit"])
        shards = sorted(inputs["references"], key=lambda handle: handle.dataId["htm7"])
        outputs = self.run(
            [handle.get() for handle in visits],
            [handle.get() for handle in shards],
            region=tract.region,
            tract=tract["tract"],
        )
        butlerQC.put(outputs, outputRefs)

    def run(self, sources: Sequence[Table], references: Sequence[Table], *, region: Region, tract: int) -> pb.Struct:
        """Associate.

        Parameters
        ----------
        sources
            Source tables of the visits.
        references
            Shards of the reference catalogue.
        region
            The tract's region; sources outside are another tract's business.
        tract
            The tract's id, for the stars' ids.

        Returns
        -------
        struct
            ``members`` and ``stars``, see `associate_isolated_stars` and `attach_references`.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no star of the tract is isolated.
        """
        inside = [visit[inside_region(visit, region)] for visit in sources]
        members, stars = associate_isolated_stars(
            vstack(inside, metadata_conflicts="silent"), self.config.criteria, first_id=tract * STARS_PER_TRACT
        )
        if not len(stars):
            raise pb.NoWorkFound(f"no isolated star in the {len(sources)} visits of tract {tract}")
        stars = attach_references(
            stars, vstack(list(references), metadata_conflicts="silent"), self.config.referenceRadius
        )
        self.metadata["n_visits"] = len(sources)
        self.metadata["n_stars"] = len(stars)
        self.metadata["n_sources"] = len(members)
        self.metadata["n_references"] = int((stars["refCatId"] >= 0).sum())
        return pb.Struct(members=members, stars=stars)
