"""Metrics of a release against the truth that its survey was simulated from, as a Butler data set.

This is the one task that reads truth. On a real survey it has no quanta, as there is no truth to read.

Belongs here: the task, and which metric is asked of which products.
Doesn't: pairing (`drp_tasks.truth_matching`), the metrics' definitions (`drp_tasks.truth_comparison`), thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table
from lsst.pipe.base import connectionTypes as ct

from drp_tasks.matching import match_sky
from drp_tasks.metrics import Metric, metrics_to_table
from drp_tasks.psf import PolynomialPsf
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.truth_comparison import (
    BandSample,
    TransientSample,
    best_band,
    bogus_per_detector,
    completeness,
    depth,
    flux_pulls,
    limiting_magnitudes,
    magnitude_bias,
    purity,
    transient_completeness,
    transient_flux_pull,
    zero_point_offsets,
)
from drp_tasks.truth_matching import (
    MATCH_ARCSEC,
    CoaddImage,
    DifferenceImage,
    band_samples,
    count_bogus,
    transient_sample,
)


class Readable(Protocol):
    """What a deferred dataset handle offers."""

    @property
    def dataId(self) -> Mapping[str, Any]:
        """The dataset's data ID."""

    def get(self) -> Any:
        """Read the dataset."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the sky was: the tables of objects, transients and visits."""

    objects: Table
    transients: Table
    visits: Table


def object_metrics(truth: Truth, objects: Table, samples: Mapping[str, BandSample]) -> list[Metric]:
    """Compute the metrics of the objects.

    Parameters
    ----------
    truth
        The truth.
    objects
        Primary objects of the tract.
    samples
        What `band_samples` paired.
    """
    metrics: list[Metric] = []
    for band, sample in samples.items():
        covered = sample.where(np.isfinite(sample.expected_error))
        metrics += magnitude_bias(covered, band)
        metrics += completeness(covered, band)
        metrics += limiting_magnitudes(covered, band)
        metrics.append(depth(covered, band))
        metrics += flux_pulls(covered, band)
    if samples:
        anywhere = np.any([np.isfinite(sample.expected_error) for sample in samples.values()], axis=0)
        metrics += completeness(best_band([sample.where(anywhere) for sample in samples.values()]), "")
    ratio = [
        np.asarray(objects[f"{band}_psfFlux"], float) / np.asarray(objects[f"{band}_psfFluxErr"], float)
        for band in samples
    ]
    known = np.zeros(len(objects), bool)
    for table in (truth.objects, truth.transients):
        known |= match_sky(objects["ra"], objects["dec"], table["ra"], table["dec"], MATCH_ARCSEC)[0] >= 0
    metrics.append(purity(np.max(np.nan_to_num(ratio), axis=0, initial=0.0), known))
    return metrics


def zero_point_metrics(truth: Table, summaries: Sequence[Table]) -> list[Metric]:
    """Compare the zero points of all detector-visits with the true ones, by band."""
    true = {(int(row["visit"]), int(row["detector"])): float(row["zeroPoint"]) for row in truth}
    offsets: dict[str, list[float]] = {}
    for summary in summaries:
        for row in summary:
            offset = float(row["zeroPoint"]) - true.get((int(row["visit"]), int(row["detector"])), np.nan)
            if np.isfinite(offset):
                offsets.setdefault(str(row["band"]), []).append(offset)
    return [metric for band in sorted(offsets) for metric in zero_point_offsets(np.array(offsets[band]), band)]


def dia_metrics(
    samples: Sequence[TransientSample], transients: Table, dia_sources: Table, n_differences: int
) -> list[Metric]:
    """Compute the metrics of difference imaging from the pairs of all difference images."""
    everything = TransientSample.join(samples)
    return [
        *transient_completeness(everything),
        transient_flux_pull(everything),
        bogus_per_detector(count_bogus(dia_sources, transients), n_differences),
    ]


class TruthMetricsConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Data sets of `TruthMetricsTask`. Only the truth and the objects decide whether there is a quantum."""

    truthObjects = ct.Input(
        doc="Stars and galaxies as they are.",
        name="truth_object",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract"),
    )
    truthTransients = ct.Input(
        doc="Transients, a row a visit in which one shines.",
        name="truth_transient",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract"),
    )
    truthVisits = ct.Input(
        doc="True zero points of all detector-visits.",
        name="truth_visit",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )
    objects = ct.Input(
        doc="Objects of the tract.", name="object", storageClass="ArrowAstropy", dimensions=("skymap", "tract")
    )
    skyMap = ct.Input(
        doc="Geometry of tracts and patches.", name="skyMap", storageClass="StructuredDataDict", dimensions=("skymap",)
    )
    coadds = ct.Input(
        doc="Deep coadds: what is covered, and how deep.",
        name="deep_coadd",
        storageClass="MaskedImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
        deferGraphConstraint=True,
    )
    coaddPsfs = ct.Input(
        doc="PSFs of the deep coadds.",
        name="deep_coadd_psf",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
        deferGraphConstraint=True,
    )
    visitSummaries = ct.Input(
        doc="Final zero points.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
        deferGraphConstraint=True,
    )
    differences = ct.Input(
        doc="Difference images: where a transient could be seen.",
        name="difference_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
        deferGraphConstraint=True,
        minimum=0,
    )
    differencePsfs = ct.Input(
        doc="PSFs of the difference images.",
        name="difference_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
        deferGraphConstraint=True,
        minimum=0,
    )
    diaSources = ct.Input(
        doc="DiaSources of the tract.",
        name="dia_source",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        deferGraphConstraint=True,
        minimum=0,
    )
    metrics = ct.Output(
        doc="One row a metric and band: metric, band, value, unit, n, measurable, detail.",
        name="truth_metrics",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class TruthMetricsConfig(pb.PipelineTaskConfig, pipelineConnections=TruthMetricsConnections):  # type: ignore[call-arg]
    """What goes into the task's metadata, beside the data set."""

    reported = pc.ListField[str](
        doc="Metrics whose values go into the metadata.",
        default=["PA6", "completenessSn10", "purity", "diaCompleteness", "diaBogusPerDetector"],
    )


class TruthMetricsTask(pb.PipelineTask):
    """Measure objects, zero points and DiaSources of a tract against the truth."""

    ConfigClass = TruthMetricsConfig
    _DefaultName = "measureTruthMetrics"
    config: TruthMetricsConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read tables at once and images one by one, and write the metrics."""
        inputs = butlerQC.get(inputRefs)
        outputs = self.run(
            Truth(inputs["truthObjects"], inputs["truthTransients"], inputs["truthVisits"]),
            objects=inputs["objects"],
            geometry=TangentSkyMap.from_dict(inputs["skyMap"]),
            tract=butlerQC.quantum.dataId["tract"],
            coadds=inputs["coadds"],
            coadd_psfs=inputs["coaddPsfs"],
            summaries=[handle.get() for handle in inputs["visitSummaries"]],
            differences=inputs.get("differences", ()),
            difference_psfs=inputs.get("differencePsfs", ()),
            dia_sources=inputs.get("diaSources"),
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        truth: Truth,
        *,
        objects: Table,
        geometry: TangentSkyMap,
        tract: int,
        coadds: Sequence[Readable],
        coadd_psfs: Sequence[Readable],
        summaries: Sequence[Table],
        differences: Sequence[Readable] = (),
        difference_psfs: Sequence[Readable] = (),
        dia_sources: Table | None = None,
    ) -> pb.Struct:
        """Measure.

        Parameters
        ----------
        truth
            The truth.
        objects
            Objects of the tract.
        geometry, tract
            Where the patches are.
        coadds, coadd_psfs
            Deep coadds and their PSFs, by (patch, band).
        summaries
            Visit summaries.
        differences, difference_psfs
            Difference images and their PSFs, by (visit, detector).
        dia_sources
            DiaSources of the tract, if there was difference imaging.

        Returns
        -------
        struct
            ``metrics``: a metric table.
        """
        psfs = {_patch_band(handle): handle for handle in coadd_psfs}
        images = (
            CoaddImage(handle.dataId["band"], handle.dataId["patch"], handle.get(), _psf(psfs[_patch_band(handle)]))
            for handle in sorted(coadds, key=_patch_band)
            if _patch_band(handle) in psfs
        )
        primary = objects[np.asarray(objects["detect_isPrimary"], bool)]
        samples = band_samples(truth.objects, primary, images, geometry, tract)
        metrics = object_metrics(truth, primary, samples)
        metrics += zero_point_metrics(truth.visits, summaries)
        if dia_sources is not None:
            pairs = [
                transient_sample(image, truth.transients, dia_sources)
                for image in _difference_images(differences, difference_psfs)
            ]
            metrics += dia_metrics(pairs, truth.transients, dia_sources, len(differences))
        for metric in metrics:
            if metric.metric in self.config.reported and metric.measurable:
                self.metadata[f"{metric.metric}_{metric.band}".rstrip("_")] = metric.value
        return pb.Struct(metrics=metrics_to_table(metrics))


def _difference_images(differences: Sequence[Readable], psfs: Sequence[Readable]) -> Iterator[DifferenceImage]:
    """Read difference images one by one."""
    by_detector = {_visit_detector(handle): handle for handle in psfs}
    for handle in sorted(differences, key=_visit_detector):
        visit, detector = _visit_detector(handle)
        yield DifferenceImage(visit, detector, handle.get(), _psf(by_detector[visit, detector]))


def _psf(handle: Readable) -> PolynomialPsf:
    return PolynomialPsf.from_table(handle.get())


def _patch_band(handle: Readable) -> tuple[int, str]:
    return int(handle.dataId["patch"]), str(handle.dataId["band"])


def _visit_detector(handle: Readable) -> tuple[int, int]:
    return int(handle.dataId["visit"]), int(handle.dataId["detector"])
