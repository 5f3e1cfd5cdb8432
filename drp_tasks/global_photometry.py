"""The global photometric calibration: one zero point for each visit and detector, such that stars repeat.

Belongs here: the sparse least-squares fit over all stars of a band at once, and the task that feeds it.
Doesn't: applying the zero points (`drp_tasks.update_visit_summary`, `drp_tasks.recalibrate_star`).
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
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse import vstack as stack_rows
from scipy.sparse.linalg import lsqr

from drp_tasks.images import AB_NANOJANSKY
from drp_tasks.robust import robust_sigma, robust_weights
from drp_tasks.visit_detector_index import find_visit_detectors

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]

MAGNITUDES_PER_RELATIVE_ERROR = 2.5 / np.log(10)


@dataclass(frozen=True, slots=True)
class VisitDetectors:
    """The (visit, detector) pairs of a band, whose zero points are asked for; arrays of shape (n_visit_detectors,)."""

    visit: Integers
    detector: Integers
    zero_point: Floats
    """Preliminary zero points in AB magnitudes of one electron."""


@dataclass(frozen=True, slots=True)
class StarMagnitudes:
    """Measurements of a band's stars; arrays of shape (n_measurements,) unless said otherwise."""

    star: Integers
    """Index of the star."""
    visit_detector: Integers
    """Index into `VisitDetectors`."""
    magnitude: Floats
    """Instrumental magnitude −2.5 log10(electrons)."""
    sigma: Floats
    """Its error in magnitudes, intrinsic scatter included."""
    reference: Floats
    """Reference magnitude of each star, NaN where it has none, shape (n_stars,)."""
    reference_sigma: Floats
    """Its error in magnitudes, shape (n_stars,)."""


@dataclass(frozen=True, slots=True)
class PriorWidths:
    """How far each kind of term is expected from zero, in magnitudes."""

    visit: float = 0.3
    """Visit terms, relative to the median of the visit's preliminary zero points."""
    detector: float = 0.005
    """Detector terms, common to all visits (errors of the flat field)."""
    visit_detector: float = 0.005
    """Terms of one detector in one visit (clouds across the field, errors of the PSF model)."""


@dataclass(frozen=True, slots=True)
class ZeroPoints:
    """Solution of a band; arrays of shape (n_visit_detectors,)."""

    zero_point: Floats
    """AB magnitude of one electron."""
    error: Floats
    n_stars: Integers
    """Measurements that had weight."""
    visit_has_stars: NDArray[np.bool_]
    """False where a whole visit has no measurement: its zero points are the preliminary ones, no solution."""
    scatter: float
    """Robust scatter of the residuals in magnitudes."""
    converged: bool
    """Whether the last linear solution reached its tolerance."""


def fit_zero_points(
    visit_detectors: VisitDetectors, stars: StarMagnitudes, priors: PriorWidths | None = None, *, n_iterations: int = 4
) -> ZeroPoints:
    """Fit all stars' magnitudes and all zero points of a band at once.

    The model of a measurement of star i in visit v on detector d is ``M_i − Z_v − D_d − E_vd``. Stars with a reference
    magnitude tie M_i to it; the terms D and E are held near zero by their priors. Sparse linear least squares (LSQR;
    Paige & Saunders 1982) with Huber weights, as the übercalibration of Padmanabhan et al. (2008) without its nightly
    extinction terms.

    Parameters
    ----------
    visit_detectors
        What is solved for.
    stars
        What it is solved from.
    priors
        Widths of the priors.
    n_iterations
        Times the linear problem is solved, with the weights of the residuals before.

    Returns
    -------
    zero_points
        A detector without stars in a visit that has some gets what its visit and its own term predict.
    """
    priors = priors or PriorWidths()
    visits, visit_index = np.unique(visit_detectors.visit, return_inverse=True)
    detectors, detector_index = np.unique(visit_detectors.detector, return_inverse=True)
    visit_zero_point = np.array([np.median(visit_detectors.zero_point[visit_index == k]) for k in range(len(visits))])
    n_stars, n_visits, n_detectors, n_visit_detectors = (
        len(stars.reference), len(visits), len(detectors), len(visit_detectors.visit),
    )  # fmt: skip
    first_term = np.cumsum([0, n_stars, n_visits, n_detectors])
    n_terms = n_stars + n_visits + n_detectors + n_visit_detectors

    calibrated = stars.magnitude + visit_zero_point[visit_index][stars.visit_detector]
    terms = np.stack(
        [
            stars.star,
            first_term[1] + visit_index[stars.visit_detector],
            first_term[2] + detector_index[stars.visit_detector],
            first_term[3] + stars.visit_detector,
        ]
    )
    measurement = _rows(terms, np.array([1.0, -1.0, -1.0, -1.0]), n_terms)
    referenced = np.flatnonzero(np.isfinite(stars.reference))
    anchor = _rows(referenced[None, :], np.ones(1), n_terms)
    prior = _rows(first_term[1] + np.arange(n_terms - n_stars)[None, :], np.ones(1), n_terms)
    matrix = stack_rows([measurement, anchor, prior]).tocsr()
    target = np.concatenate([calibrated, stars.reference[referenced], np.zeros(n_terms - n_stars)])
    widths = np.repeat(
        [priors.visit, priors.detector, priors.visit_detector], [n_visits, n_detectors, n_visit_detectors]
    )
    sigma = np.concatenate([stars.sigma, stars.reference_sigma[referenced], widths])

    n_data = len(calibrated)
    n_anchors = len(referenced)
    weight = np.ones(len(target))
    solution = _first_guess(stars, calibrated, n_terms)
    for _ in range(n_iterations):
        solution, converged = _solve(matrix, target, np.sqrt(weight) / sigma, solution)
        residual = (target - matrix @ solution) / sigma
        weight[:n_data] = robust_weights(residual[:n_data])
        weight[n_data : n_data + n_anchors] = robust_weights(residual[n_data : n_data + n_anchors])

    visit_term, detector_term, visit_detector_term = np.split(solution, first_term[1:])[1:]
    information = np.bincount(stars.visit_detector, weight[:n_data] / stars.sigma**2, minlength=n_visit_detectors)
    n_used = np.bincount(stars.visit_detector[weight[:n_data] > 0], minlength=n_visit_detectors)
    return ZeroPoints(
        zero_point=(visit_zero_point + visit_term)[visit_index] + detector_term[detector_index] + visit_detector_term,
        error=1 / np.sqrt(information + 1 / (priors.detector**2 + priors.visit_detector**2)),
        n_stars=n_used.astype(np.int64),
        visit_has_stars=np.bincount(visit_index, n_used, minlength=n_visits)[visit_index] > 0,
        scatter=robust_sigma(residual[:n_data] * stars.sigma),
        converged=converged,
    )


def select_measurements(
    visit_detectors: VisitDetectors,
    members: Table,
    stars: Table,
    band: str,
    *,
    min_signal_to_noise: float,
    intrinsic_scatter: float,
    reference_floor: float,
) -> StarMagnitudes:
    """Take a band's measurements that tell something about zero points: of stars seen twice, or in the references.

    Parameters
    ----------
    visit_detectors
        The detectors of the band's visits.
    members
        Sources of isolated stars, each once.
    stars
        Isolated stars with their reference magnitudes.
    band
        The band.
    min_signal_to_noise
        Fainter measurements are left out.
    intrinsic_scatter, reference_floor
        Magnitudes added in quadrature to the measurements' and to the references' errors.

    Returns
    -------
    measurements
        With instrumental magnitudes: the preliminary zero points are taken out again.
    """
    star_id, first = np.unique(np.asarray(stars["isolatedStarId"], np.int64), return_index=True)
    reference, reference_sigma = np.full(len(star_id), np.nan), np.full(len(star_id), np.inf)
    if f"refMag_{band}" in stars.colnames:
        reference = np.asarray(stars[f"refMag_{band}"], float)[first]
        reference_sigma = np.hypot(np.asarray(stars[f"refMagErr_{band}"], float)[first], reference_floor)

    visit_detector = find_visit_detectors(
        members["visit"], members["detector"], visit_detectors.visit, visit_detectors.detector
    )
    flux, flux_error = np.asarray(members["psfFlux"], float), np.asarray(members["psfFluxErr"], float)
    with np.errstate(invalid="ignore", divide="ignore"):
        use = (visit_detector >= 0) & (flux / flux_error > min_signal_to_noise)
    star = np.searchsorted(star_id, np.asarray(members["isolatedStarId"], np.int64))
    n_measurements = np.bincount(star[use], minlength=len(star_id))
    use &= (n_measurements[star] >= 2) | np.isfinite(reference)[star]

    kept, star = np.unique(star[use], return_inverse=True)
    flux, flux_error, visit_detector = flux[use], flux_error[use], visit_detector[use]
    return StarMagnitudes(
        star=star.astype(np.int64),
        visit_detector=visit_detector,
        magnitude=AB_NANOJANSKY - 2.5 * np.log10(flux) - visit_detectors.zero_point[visit_detector],
        sigma=np.hypot(MAGNITUDES_PER_RELATIVE_ERROR * flux_error / flux, intrinsic_scatter),
        reference=reference[kept],
        reference_sigma=reference_sigma[kept],
    )


def _rows(terms: Integers, factors: Floats, n_terms: int) -> csr_matrix:
    """Sparse rows with the same factors: ``terms`` (n_factors, n_rows) says where in each row they stand."""
    n_factors, n_rows = terms.shape
    rows = np.tile(np.arange(n_rows), n_factors)
    return coo_matrix((np.repeat(factors, n_rows), (rows, terms.ravel())), shape=(n_rows, n_terms)).tocsr()


def _first_guess(stars: StarMagnitudes, calibrated: Floats, n_terms: int) -> Floats:
    """Start from the stars' mean magnitudes, which is near the solution already."""
    guess = np.zeros(n_terms)
    n_stars = len(stars.reference)
    weight = np.bincount(stars.star, stars.sigma**-2, minlength=n_stars)
    guess[:n_stars] = np.bincount(stars.star, calibrated * stars.sigma**-2, minlength=n_stars) / weight
    return guess


def _solve(matrix: csr_matrix, target: Floats, root_weight: Floats, guess: Floats) -> tuple[Floats, bool]:
    """Weighted least squares by LSQR, its columns scaled to unit length, from a guess."""
    weighted = matrix.multiply(root_weight[:, None]).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
    length[length == 0] = 1.0
    remaining = root_weight * (target - matrix @ guess)
    scaled = weighted.multiply(1 / length[None, :]).tocsr()
    step, reason, *_ = lsqr(scaled, remaining, atol=1e-10, btol=1e-10, iter_lim=5000)
    return guess + step / length, reason != 7


class FitGlobalPhotometryConnections(pb.PipelineTaskConnections, dimensions=("instrument",)):  # type: ignore[call-arg]
    """Data sets of `FitGlobalPhotometryTask`."""

    members = ct.Input(
        doc="Sources of the isolated stars of every tract.",
        name="isolated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        multiple=True,
        deferLoad=True,
    )
    stars = ct.Input(
        doc="Isolated stars of every tract, with their reference magnitudes.",
        name="isolated_star_association",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        multiple=True,
        deferLoad=True,
    )
    summaries = ct.Input(
        doc="Summaries of every visit, with the preliminary zero points.",
        name="preliminary_visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    catalog = ct.Output(
        doc="New zero points: visit, detector, band, zeroPoint, zeroPointErr, nStars.",
        name="fgcmPhotoCalibCatalog",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )


class FitGlobalPhotometryConfig(pb.PipelineTaskConfig, pipelineConnections=FitGlobalPhotometryConnections):  # type: ignore[call-arg]
    """Selection and widths of priors."""

    minSignalToNoise = pc.Field[float](doc="Fainter measurements are left out.", default=40.0)
    intrinsicScatter = pc.Field[float](doc="Added to the measurements' errors in quadrature [mag].", default=0.004)
    referenceFloor = pc.Field[float](
        doc="Added to the reference magnitudes' errors in quadrature [mag].", default=0.005
    )
    visitPrior = pc.Field[float](doc="Width of the visit terms' prior [mag].", default=0.3)
    detectorPrior = pc.Field[float](doc="Width of the detector terms' prior [mag].", default=0.005)
    visitDetectorPrior = pc.Field[float](doc="Width of the prior of one detector in one visit [mag].", default=0.005)
    nIterations = pc.Field[int](doc="Rounds of robust reweighting.", default=4)

    @property
    def priors(self) -> PriorWidths:
        """The priors' widths as a value."""
        return PriorWidths(visit=self.visitPrior, detector=self.detectorPrior, visit_detector=self.visitDetectorPrior)


class FitGlobalPhotometryTask(pb.PipelineTask):
    """Fit the zero points of all visits and detectors of the survey, band by band."""

    ConfigClass = FitGlobalPhotometryConfig
    _DefaultName = "fitGlobalPhotometry"
    config: FitGlobalPhotometryConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read every tract's stars and every visit's summary, and write the survey's zero points."""
        inputs = butlerQC.get(inputRefs)
        tables = {
            name: [handle.get() for handle in sorted(handles, key=lambda handle: handle.dataId.required_values)]
            for name, handles in inputs.items()
        }
        butlerQC.put(self.run(**tables), outputRefs)

    def run(self, members: Sequence[Table], stars: Sequence[Table], summaries: Sequence[Table]) -> pb.Struct:
        """Fit.

        Parameters
        ----------
        members, stars
            Isolated stars of the tracts; a source in two tracts counts once.
        summaries
            Summaries of the visits.

        Returns
        -------
        struct
            ``catalog``: a row for each (visit, detector) of a visit with stars.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no visit has a star to fit.
        """
        summary = vstack(list(summaries), metadata_conflicts="silent")
        summary = summary[np.isfinite(summary["zeroPoint"])]
        sources = vstack(list(members), metadata_conflicts="silent")
        sources = sources[np.unique(np.asarray(sources["sourceId"]), return_index=True)[1]]
        all_stars = vstack(list(stars), metadata_conflicts="silent")
        bands = np.asarray(summary["band"], str)
        solved = [self._fit_band(summary[bands == band], sources, all_stars, str(band)) for band in np.unique(bands)]
        catalog = vstack([table for table in solved if len(table)] or solved[:1], metadata_conflicts="silent")
        if not len(catalog):
            raise pb.NoWorkFound("no visit has a star to fit its zero point from")
        self.metadata["n_visit_detectors"] = len(catalog)
        return pb.Struct(catalog=catalog)

    def _fit_band(self, summary: Table, sources: Table, stars: Table, band: str) -> Table:
        visit_detectors = VisitDetectors(
            visit=np.asarray(summary["visit"], np.int64),
            detector=np.asarray(summary["detector"], np.int64),
            zero_point=np.asarray(summary["zeroPoint"], float),
        )
        measurements = select_measurements(
            visit_detectors,
            sources,
            stars,
            band,
            min_signal_to_noise=self.config.minSignalToNoise,
            intrinsic_scatter=self.config.intrinsicScatter,
            reference_floor=self.config.referenceFloor,
        )
        solution = fit_zero_points(
            visit_detectors, measurements, self.config.priors, n_iterations=self.config.nIterations
        )
        if not solution.converged:
            self.log.warning("The photometric fit in %s stopped at its limit of iterations.", band)
        self.metadata[f"n_measurements_{band}"] = len(measurements.star)
        self.metadata[f"n_reference_stars_{band}"] = int(np.isfinite(measurements.reference).sum())
        self.metadata[f"residual_scatter_mmag_{band}"] = 1000 * solution.scatter
        table = Table(
            {
                "visit": visit_detectors.visit,
                "detector": visit_detectors.detector.astype(np.int32),
                "band": np.full(len(summary), band, "U8"),
                "zeroPoint": solution.zero_point * u.mag,
                "zeroPointErr": solution.error * u.mag,
                "nStars": solution.n_stars.astype(np.int32),
            }
        )
        return table[solution.visit_has_stars]
