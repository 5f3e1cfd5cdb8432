"""Metrics of the calibration of a tract's visits: repeatability, astrometry, zero points and PSFs, as Butler data sets.

Belongs here: the task, and which measurements each metric is asked of.
Doesn't: the metrics' definitions (`drp_tasks.star_metrics`, `drp_tasks.psf_metrics`), or their thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table, vstack
from lsst.pipe.base import connectionTypes as ct

from drp_tasks.images import AB_NANOJANSKY
from drp_tasks.metrics import Metric, metrics_to_table
from drp_tasks.psf_metrics import PsfResiduals, ellipticity_correlations, psf_model_residuals
from drp_tasks.star_metrics import (
    ANNULI,
    StarObservations,
    absolute_astrometry,
    band_registration,
    photometric_repeatability,
    position_repeatability,
    relative_astrometry,
    zero_point_scatter,
)

STAR_COLUMNS = ("sourceId", "visit", "band", "ra", "dec", "psfFlux", "psfFluxErr")
MOMENT_COLUMNS = ("calibPsfUsed", "starSize", "starE1", "starE2", "psfSize", "psfE1", "psfE2")


def observations_of(sources: Table, members: Table, stars: Table) -> dict[str, StarObservations]:
    """Sort the recalibrated measurements of isolated stars by band.

    Parameters
    ----------
    sources
        Recalibrated sources of any visits.
    members
        Which sources belong to which star: isolatedStarId, sourceId.
    stars
        The isolated stars; a star's index in the observations is its row here.

    Returns
    -------
    observations
        By band, in the order of the alphabet. Measurements without a positive flux are left out.
    """
    by_source = np.argsort(members["sourceId"])
    source_id = np.asarray(members["sourceId"])[by_source]
    place = np.minimum(np.searchsorted(source_id, np.asarray(sources["sourceId"])), len(source_id) - 1)
    flux, error = np.asarray(sources["psfFlux"], float), np.asarray(sources["psfFluxErr"], float)
    use = (source_id[place] == np.asarray(sources["sourceId"])) & (flux > 0) & np.isfinite(error)
    star_id = np.asarray(stars["isolatedStarId"])
    by_star = np.argsort(star_id)
    member_of = np.asarray(members["isolatedStarId"])[by_source][place]
    star = by_star[np.searchsorted(star_id[by_star], member_of[use])]
    sources, flux, error = sources[use], flux[use], error[use]
    everything = StarObservations(
        star=star,
        visit=np.asarray(sources["visit"], np.int64),
        magnitude=AB_NANOJANSKY - 2.5 * np.log10(flux),
        signal_to_noise=flux / error,
        ra=np.asarray(sources["ra"], float),
        dec=np.asarray(sources["dec"], float),
    )
    bands = np.asarray(sources["band"], str)
    return {str(band): everything.where(bands == band) for band in np.unique(bands)}


def calibration_metrics(sources: Table, members: Table, stars: Table, summary: Table) -> list[Metric]:
    """Compute all metrics of the calibration.

    Parameters
    ----------
    sources
        Recalibrated sources of the tract's visits.
    members, stars
        The tract's isolated stars.
    summary
        Final summaries of the visits, stacked.

    Returns
    -------
    metrics
        Each in each band where it is defined by band.
    """
    observations = observations_of(sources, members, stars)
    return [
        *_star_metrics(observations),
        *absolute_astrometry(observations.values(), np.asarray(stars["refRa"]), np.asarray(stars["refDec"])),
        *band_registration(observations),
        *_visit_metrics(sources, summary),
    ]


def _star_metrics(observations: dict[str, StarObservations]) -> Iterator[Metric]:
    for band, seen in observations.items():
        yield from photometric_repeatability(seen, band)
        yield from position_repeatability(seen, band)
        for annulus in ANNULI:
            yield from relative_astrometry(seen, band, annulus)


def _visit_metrics(sources: Table, summary: Table) -> Iterator[Metric]:
    summary_bands = np.asarray(summary["band"], str)
    psf_stars = sources[np.asarray(sources["calibPsfUsed"], bool)]
    source_bands = np.asarray(psf_stars["band"], str)
    for band in np.unique(summary_bands):
        mine = summary[summary_bands == band]
        yield zero_point_scatter(np.asarray(mine["visit"]), np.asarray(mine["zeroPoint"], float), str(band))
        residuals = PsfResiduals.from_table(psf_stars[source_bands == band])
        yield from psf_model_residuals(residuals, str(band))
        yield from ellipticity_correlations(residuals, str(band))


class CalibrationMetricsConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Data sets of `CalibrationMetricsTask`."""

    sources = ct.Input(
        doc="Recalibrated sources of each visit that overlaps the tract.",
        name="recalibrated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    members = ct.Input(
        doc="Sources of the tract's isolated stars.",
        name="isolated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        deferLoad=True,
    )
    stars = ct.Input(
        doc="The tract's isolated stars, with their reference positions.",
        name="isolated_star_association",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )
    summaries = ct.Input(
        doc="Final summary of each visit that overlaps the tract.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    metrics = ct.Output(
        doc="One row a metric and band: metric, band, value, unit, n, measurable, detail.",
        name="calibration_metrics",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class CalibrationMetricsConfig(pb.PipelineTaskConfig, pipelineConnections=CalibrationMetricsConnections):  # type: ignore[call-arg]
    """What goes into the task's metadata, beside the data set."""

    reported = pc.ListField[str](doc="Metrics whose values go into the metadata.", default=["PA1", "AM1", "AA1"])


class CalibrationMetricsTask(pb.PipelineTask):
    """Measure how good the calibration of a tract's visits is."""

    ConfigClass = CalibrationMetricsConfig
    _DefaultName = "measureCalibrationMetrics"
    config: CalibrationMetricsConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the tract's stars and its visits, and write the metrics."""
        inputs = butlerQC.get(inputRefs)
        columns = {"columns": [*STAR_COLUMNS, *MOMENT_COLUMNS]}
        outputs = self.run(
            sources=[handle.get(parameters=columns) for handle in _by_visit(inputs["sources"])],
            members=inputs["members"].get(parameters={"columns": ["isolatedStarId", "sourceId"]}),
            stars=inputs["stars"],
            summaries=[handle.get() for handle in _by_visit(inputs["summaries"])],
        )
        butlerQC.put(outputs, outputRefs)

    def run(self, sources: Sequence[Table], members: Table, stars: Table, summaries: Sequence[Table]) -> pb.Struct:
        """Measure, see `calibration_metrics`; the struct's ``metrics`` is a metric table."""
        metrics = calibration_metrics(
            vstack(list(sources), metadata_conflicts="silent"),
            members,
            stars,
            vstack(list(summaries), metadata_conflicts="silent"),
        )
        for metric in metrics:
            if metric.metric in self.config.reported and metric.measurable:
                self.metadata[f"{metric.metric}_{metric.band}".rstrip("_")] = metric.value
        return pb.Struct(metrics=metrics_to_table(metrics))


def _by_visit(handles: Iterable[Any]) -> list[Any]:
    return sorted(handles, key=lambda handle: handle.dataId["visit"])
