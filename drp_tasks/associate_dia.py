"""DiaObjects: DiaSources of all visits at one place of the sky.

Belongs here: linking DiaSources of a tract, and what their object's columns are.
Doesn't: finding DiaSources (`drp_tasks.dia_source`), or fluxes where nothing was detected
(`drp_tasks.forced_photometry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table, vstack
from lsst.pipe.base import connectionTypes as ct
from lsst.sphgeom import Region

from drp_tasks.isolated_star import inside_region
from drp_tasks.matching import link_friends, sky_position, unit_vectors


def associate_dia_sources(sources: Table, radius_arcsec: float, bands: Sequence[str]) -> tuple[Table, Table]:
    """Link DiaSources to DiaObjects: friends of friends, whatever the order of the rows.

    An object's id is the id of its earliest DiaSource, so it needs no counter and stays as further visits come.

    Parameters
    ----------
    sources
        DiaSources of any visits, with columns diaSourceId, band, mjdMid, ra, dec [deg], psfFlux, psfFluxErr [nJy].
    radius_arcsec
        Linking length.
    bands
        Bands that get columns of mean fluxes.

    Returns
    -------
    sources
        The DiaSources sorted by id, with their diaObjectId in front.
    objects
        One row a DiaObject, sorted by id: diaObjectId, ra, dec [deg] (mean weighted by S/N²), nDiaSources,
        firstDiaSourceMjd, lastDiaSourceMjd, and per band nDiaSources, psfFluxMean and psfFluxMeanErr [nJy]
        (weighted by the inverse variance; NaN without DiaSources).
    """
    sources = sources[np.argsort(np.asarray(sources["diaSourceId"]), kind="stable")]
    source_id, mjd = np.asarray(sources["diaSourceId"], np.int64), np.asarray(sources["mjdMid"], float)
    flux, error = np.asarray(sources["psfFlux"], float), np.asarray(sources["psfFluxErr"], float)
    group = link_friends(sources["ra"], sources["dec"], radius_arcsec)

    by_time = np.lexsort((source_id, mjd))
    _, first = np.unique(group[by_time], return_index=True)
    object_of_group = source_id[by_time[first]]
    object_id, index = np.unique(object_of_group[group], return_inverse=True)
    n = len(object_id)

    weight = (flux / error) ** 2
    axes = unit_vectors(sources["ra"], sources["dec"])
    ra, dec = sky_position(np.stack([np.bincount(index, weight * axis, n) for axis in axes.T], axis=-1))
    earliest, latest = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(earliest, index, mjd)
    np.maximum.at(latest, index, mjd)
    objects = Table(
        {
            "diaObjectId": object_id,
            "ra": ra * u.deg,
            "dec": dec * u.deg,
            "nDiaSources": np.bincount(index, minlength=n).astype(np.int32),
            "firstDiaSourceMjd": earliest * u.day,
            "lastDiaSourceMjd": latest * u.day,
        }
    )
    for band in bands:
        chosen = np.asarray(sources["band"]).astype(str) == band
        inverse_variance = np.bincount(index[chosen], error[chosen] ** -2, n)
        total = np.bincount(index[chosen], flux[chosen] * error[chosen] ** -2, n)
        known = inverse_variance > 0
        safe = np.where(known, inverse_variance, 1.0)
        objects[f"{band}_nDiaSources"] = np.bincount(index[chosen], minlength=n).astype(np.int32)
        objects[f"{band}_psfFluxMean"] = np.where(known, total / safe, np.nan) * u.nJy
        objects[f"{band}_psfFluxMeanErr"] = np.where(known, safe**-0.5, np.nan) * u.nJy
    linked = sources.copy()
    linked.add_column(object_id[index], name="diaObjectId", index=0)
    return linked, objects


class AssociateDiaSourceConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Data sets of `AssociateDiaSourceTask`."""

    detectorSources = ct.Input(
        doc="DiaSources of each detector-visit that overlaps the tract.",
        name="dia_source_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    diaSources = ct.Output(
        doc="DiaSources of the tract, each with its DiaObject.",
        name="dia_source",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )
    diaObjects = ct.Output(
        doc="DiaObjects of the tract.",
        name="dia_object",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class AssociateDiaSourceConfig(pb.PipelineTaskConfig, pipelineConnections=AssociateDiaSourceConnections):  # type: ignore[call-arg]
    """Linking length and columns."""

    radius = pc.Field[float](doc="DiaSources closer than this are one DiaObject [arcsec].", default=0.6)
    bands = pc.ListField[str](doc="Bands with columns of mean fluxes.", default=["u", "g", "r", "i", "z", "y"])


class AssociateDiaSourceTask(pb.PipelineTask):
    """Link the DiaSources of all visits of a tract to DiaObjects."""

    ConfigClass = AssociateDiaSourceConfig
    _DefaultName = "associateDiaSource"
    config: AssociateDiaSourceConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the tract's DiaSources and write its DiaObjects."""
        handles = sorted(
            butlerQC.get(inputRefs.detectorSources),
            key=lambda handle: (handle.dataId["visit"], handle.dataId["detector"]),
        )
        tables = [handle.get() for handle in handles]
        butlerQC.put(self.run(tables, region=butlerQC.quantum.dataId.region), outputRefs)

    def run(self, tables: Sequence[Table], *, region: Region) -> pb.Struct:
        """Associate.

        Parameters
        ----------
        tables
            DiaSources of each detector-visit.
        region
            The tract's region; DiaSources outside are another tract's.

        Returns
        -------
        struct
            ``diaSources`` and ``diaObjects``, see `associate_dia_sources`.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If there is no table.
        """
        if not tables:
            raise pb.NoWorkFound("no difference image overlaps the tract")
        sources = vstack(list(tables), metadata_conflicts="silent")
        sources, objects = associate_dia_sources(
            sources[inside_region(sources, region)], self.config.radius, list(self.config.bands)
        )
        self.metadata["n_dia_sources"] = len(sources)
        self.metadata["n_dia_objects"] = len(objects)
        return pb.Struct(diaSources=sources, diaObjects=objects)
