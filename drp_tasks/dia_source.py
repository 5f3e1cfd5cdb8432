"""DiaSources: what changed on one detector-visit, brighter or fainter, and what merely looks like it.

Belongs here: detection of both signs in a difference image, their PSF fluxes, and the tests that reject artefacts.
Doesn't: making the difference (`drp_tasks.subtract_images`), or linking DiaSources over visits
(`drp_tasks.associate_dia`).

A transient that shines in visits that the template coadd is made of is in the template too: it is found with less than
its flux where it shines, and as a negative DiaSource in visits where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lsst.images as li
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drp_tasks.detection import detect, signal_to_noise
from drp_tasks.identifiers import source_ids
from drp_tasks.images import plane, unusable, wcs_of
from drp_tasks.photometry import psf_photometry
from drp_tasks.psf import PolynomialPsf
from drp_tasks.reprocess_visit_image import detector_row


@dataclass(frozen=True, slots=True)
class Candidates:
    """Detections in a difference with their point-source fluxes, arrays (n,).

    Parameters
    ----------
    x, y, x_err, y_err
        Fitted positions and errors, pixels; errors are NaN where the fit walked away.
    flux, flux_err
        Signed flux of the difference and its error, in the image's unit.
    chi2
        Reduced chi-squared of the PSF fit.
    usable
        Part of the PSF's weight on usable pixels.
    """

    x: NDArray[np.floating]
    y: NDArray[np.floating]
    x_err: NDArray[np.floating]
    y_err: NDArray[np.floating]
    flux: NDArray[np.floating]
    flux_err: NDArray[np.floating]
    chi2: NDArray[np.floating]
    usable: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def snr(self) -> NDArray[np.floating]:
        """Size of the flux over its error."""
        return np.abs(self.flux) / self.flux_err


@dataclass(frozen=True, slots=True)
class Rejection:
    """What makes a candidate an artefact."""

    min_snr: float = 5.0
    """Least S/N of the PSF flux."""
    max_chi2: float = 1.5
    """Largest reduced chi-squared of a faint candidate; see `chi2_per_snr`."""
    chi2_per_snr: float = 0.02
    """The limit on chi-squared grows by (this times S/N)², as errors of the PSF show in bright candidates."""
    min_usable: float = 0.7
    """Least part of the PSF's weight on usable pixels."""
    duplicate_radius_px: float = 3.0
    """Of candidates of one sign within this distance the most significant stays: a bad column splits a source."""
    saturation_px: int = 8
    """Nothing this near to a saturated pixel is believed: what is left of a bright star's wings."""
    dipole_radius_px: float = 9.0
    """Two candidates of opposite sign within this distance are a dipole: a misplaced or mismatched source."""
    dipole_flux_ratio: float = 0.25
    """If the fainter one's flux is less than this part of the brighter one's, the brighter one stays."""


def find_candidates(
    array: NDArray[np.floating],
    variance: NDArray[np.floating],
    bad: NDArray[np.bool_],
    psf: PolynomialPsf,
    threshold: float,
) -> Candidates:
    """Detect peaks of either sign and measure them with the PSF.

    Parameters
    ----------
    array, variance, bad
        The difference with white noise, its variance, its unusable pixels; (ny, nx).
    psf
        PSF of the difference.
    threshold
        Least modulus of a peak on the map of signal to noise.
    """
    ny, nx = array.shape
    sn = signal_to_noise(array, variance, bad, psf.image_at((nx - 1) / 2, (ny - 1) / 2))
    parts = []
    for sign in (1.0, -1.0):
        found = detect(sign * sn, bad, threshold, 1, deblend_contrast=1.0)
        fit = psf_photometry(sign * array, variance, bad, psf, found.peak_x, found.peak_y)
        parts.append(
            np.array([fit.x, fit.y, fit.x_err, fit.y_err, sign * fit.flux, fit.flux_err, fit.chi2, fit.usable])
        )
    return Candidates(*np.concatenate(parts, axis=1))


def real(candidates: Candidates, rules: Rejection) -> NDArray[np.bool_]:
    """Tell which candidates are point sources that changed, rather than artefacts.

    Parameters
    ----------
    candidates
        What was detected.
    rules
        What makes an artefact.

    Returns
    -------
    real : `numpy.ndarray` [`bool`]
        One value a candidate.
    """
    snr = candidates.snr
    measured = np.isfinite(snr) & np.isfinite(candidates.x_err) & (candidates.usable >= rules.min_usable)
    limit = rules.max_chi2 + (rules.chi2_per_snr * snr) ** 2
    believed = measured & (snr >= rules.min_snr) & (candidates.chi2 <= limit) & ~_in_dipole(candidates, rules)
    return believed & ~_duplicate(candidates, believed, rules.duplicate_radius_px)


def near(
    plane_: NDArray[np.bool_], x: NDArray[np.floating], y: NDArray[np.floating], reach_px: int
) -> NDArray[np.bool_]:
    """Tell which positions have a set pixel of a mask plane within a square of half side ``reach_px``."""
    columns, rows = (np.rint(np.nan_to_num(axis)).astype(int) for axis in (x, y))
    return np.array(
        [
            plane_[max(row - reach_px, 0) : row + reach_px + 1, max(column - reach_px, 0) : column + reach_px + 1].any()
            for column, row in zip(columns, rows, strict=True)
        ],
        bool,
    )


def _in_dipole(candidates: Candidates, rules: Rejection) -> NDArray[np.bool_]:
    """Tell which candidates have a neighbour of opposite sign that they cannot outshine."""
    dipole = np.zeros(len(candidates), bool)
    size = np.abs(candidates.flux)
    for first, second in _pairs(candidates, np.isfinite(candidates.flux), rules.dipole_radius_px):
        if candidates.flux[first] * candidates.flux[second] < 0:
            fainter, brighter = sorted((first, second), key=lambda i: size[i])
            dipole[fainter] = True
            dipole[brighter] |= size[fainter] > rules.dipole_flux_ratio * size[brighter]
    return dipole


def _duplicate(candidates: Candidates, among: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    """Tell which candidates have a more significant neighbour of the same sign."""
    duplicate = np.zeros(len(candidates), bool)
    snr = candidates.snr
    for first, second in _pairs(candidates, among, radius_px):
        if candidates.flux[first] * candidates.flux[second] > 0:
            duplicate[first if snr[first] < snr[second] else second] = True
    return duplicate


def _pairs(candidates: Candidates, among: NDArray[np.bool_], radius_px: float) -> NDArray[np.int64]:
    """Return the pairs of the chosen candidates that are closer than a radius, (n, 2)."""
    rows = np.flatnonzero(among)
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(np.column_stack([candidates.x[rows], candidates.y[rows]]))
    return rows[tree.query_pairs(radius_px, output_type="ndarray")]


class DetectAndMeasureDiaSourceConnections(  # type: ignore[call-arg]
    pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")
):
    """Data sets of `DetectAndMeasureDiaSourceTask`."""

    difference = ct.Input(
        doc="Difference image with white noise.",
        name="difference_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    differencePsf = ct.Input(
        doc="PSF of the difference.",
        name="difference_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    visitSummary = ct.Input(
        doc="When and in which band the visit was.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    diaSources = ct.Output(
        doc="DiaSources of the detector-visit, artefacts left out.",
        name="dia_source_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class DetectAndMeasureDiaSourceConfig(  # type: ignore[call-arg]
    pb.PipelineTaskConfig, pipelineConnections=DetectAndMeasureDiaSourceConnections
):
    """Threshold of detection and rules of rejection."""

    threshold = pc.Field[float](doc="Least modulus of a peak on the map of signal to noise.", default=4.5)
    minSignalToNoise = pc.Field[float](doc="Least S/N of the PSF flux.", default=Rejection().min_snr)
    maxChi2 = pc.Field[float](doc="Largest reduced chi-squared of a faint DiaSource.", default=Rejection().max_chi2)
    chi2PerSignalToNoise = pc.Field[float](
        doc="The limit on chi-squared grows by (this times S/N)².", default=Rejection().chi2_per_snr
    )
    saturationReach = pc.Field[int](
        doc="DiaSources this near to a saturated pixel are rejected [pixels].", default=Rejection().saturation_px
    )
    minUsable = pc.Field[float](doc="Least part of the PSF on usable pixels.", default=Rejection().min_usable)
    duplicateRadius = pc.Field[float](
        doc="Of DiaSources of one sign within this distance the most significant stays [pixels].",
        default=Rejection().duplicate_radius_px,
    )
    dipoleRadius = pc.Field[float](
        doc="Opposite signs within this distance are a dipole [pixels].", default=Rejection().dipole_radius_px
    )
    dipoleFluxRatio = pc.Field[float](
        doc="Least flux of a dipole's fainter lobe over the brighter one's.", default=Rejection().dipole_flux_ratio
    )

    @property
    def rejection(self) -> Rejection:
        """The rules as a value."""
        return Rejection(
            min_snr=self.minSignalToNoise,
            max_chi2=self.maxChi2,
            chi2_per_snr=self.chi2PerSignalToNoise,
            min_usable=self.minUsable,
            duplicate_radius_px=self.duplicateRadius,
            saturation_px=self.saturationReach,
            dipole_radius_px=self.dipoleRadius,
            dipole_flux_ratio=self.dipoleFluxRatio,
        )


class DetectAndMeasureDiaSourceTask(pb.PipelineTask):
    """Find and measure DiaSources in one difference image."""

    ConfigClass = DetectAndMeasureDiaSourceConfig
    _DefaultName = "detectAndMeasureDiaSource"
    config: DetectAndMeasureDiaSourceConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Measure one detector-visit."""
        inputs = butlerQC.get(inputRefs)
        data_id = butlerQC.quantum.dataId
        butlerQC.put(self.run(**inputs, visit=data_id["visit"], detector=data_id["detector"]), outputRefs)

    def run(
        self, difference: li.MaskedImage, differencePsf: Table, visitSummary: Table, *, visit: int, detector: int
    ) -> pb.Struct:
        """Detect, measure, reject.

        Parameters
        ----------
        difference, differencePsf
            The difference (nJy) and its PSF as a table.
        visitSummary
            The visit's summary; band and time are read from it.
        visit, detector
            Ids, for the table and the DiaSources' ids.

        Returns
        -------
        struct
            ``diaSources``: a table, maybe without rows.
        """
        bad = unusable(difference)
        candidates = find_candidates(
            difference.image.array,
            difference.variance.array,
            bad,
            PolynomialPsf.from_table(differencePsf),
            self.config.threshold,
        )
        rules = self.config.rejection
        saturated = near(plane(difference, "SAT"), candidates.x, candidates.y, rules.saturation_px)
        accepted = np.flatnonzero(real(candidates, rules) & ~saturated)
        self.metadata["n_candidates"] = len(candidates)
        self.metadata["n_dia_sources"] = len(accepted)
        this = detector_row(visitSummary, detector)
        x, y = candidates.x[accepted], candidates.y[accepted]
        ra, dec = wcs_of(difference).all_pix2world(x, y, 0)
        flux, n = candidates.flux[accepted], len(accepted)
        interpolated = plane(difference, "INTRP")[np.rint(y).astype(int), np.rint(x).astype(int)]
        return pb.Struct(
            diaSources=Table(
                {
                    "diaSourceId": source_ids(visit, detector, n),
                    "visit": np.full(n, visit, np.int64),
                    "detector": np.full(n, detector, np.int32),
                    "band": np.full(n, str(this["band"])),
                    "mjdMid": np.full(n, float(this["mjdMid"])) * u.day,
                    "ra": ra * u.deg,
                    "dec": dec * u.deg,
                    "x": x * u.pix,
                    "y": y * u.pix,
                    "xErr": candidates.x_err[accepted].astype(np.float32) * u.pix,
                    "yErr": candidates.y_err[accepted].astype(np.float32) * u.pix,
                    "psfFlux": flux * u.nJy,
                    "psfFluxErr": candidates.flux_err[accepted] * u.nJy,
                    "snr": candidates.snr[accepted].astype(np.float32),
                    "psfChi2": candidates.chi2[accepted].astype(np.float32),
                    "isNegative": flux < 0,
                    "flag": interpolated | (candidates.usable[accepted] < 1),
                }
            )
        )
