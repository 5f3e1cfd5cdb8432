"""One detector of one visit, from electrons to a calibrated image with its PSF, sources, WCS and zero point.

Belongs here: the task, its connections and configuration, and the order in which the numerics are called.
Doesn't: the numerics: `drp_tasks.cosmic_rays`, `cleaning`, `psf_stars`, `psf`, `detection`, `source_measurement`,
`astrometry`, `photometry`, `moments`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table, vstack
from lsst.images import MaskedImage
from lsst.pipe.base import connectionTypes as ct

from drp_tasks import camera
from drp_tasks.astrometry import AstrometricSolution, AstrometryError, Reference, solve_astrometry
from drp_tasks.cleaning import Background, fill_holes, fit_background, smooth_variance, source_mask
from drp_tasks.cosmic_rays import find_cosmic_rays
from drp_tasks.detection import detect, signal_to_noise
from drp_tasks.images import masked_image, nanojansky_per_electron, plane, wcs_of
from drp_tasks.moments import add_moments
from drp_tasks.photometry import ZeroPoint, fit_zero_point
from drp_tasks.psf import PolynomialPsf, TooFewStarsError, fit_psf
from drp_tasks.psf_stars import PsfCandidates, select_psf_stars
from drp_tasks.source_measurement import extendedness, identified, measure_sources, rows_near
from drp_tasks.visit_facts import VisitFacts, facts_of
from drp_tasks.visit_summary import DetectorCalibration, summary_row

MATCH_PX = 1.5
"""How far the position of one source in two lists may differ."""


class CalibrationFailure(pb.AlgorithmError):
    """The data don't allow a calibration; running again changes nothing."""

    def __init__(self, message: str, **numbers: float) -> None:
        super().__init__(message)
        self._numbers = numbers

    @property
    def metadata(self) -> dict[str, float]:
        """Numbers that tell by how much the data fall short."""
        return self._numbers


class TooFewPsfStars(CalibrationFailure):
    """Too few stars are bright, isolated and whole enough to fit a PSF."""


class AstrometryFailed(CalibrationFailure):
    """Too few stars match the reference catalogue to fit a WCS."""


class ZeroPointFailed(CalibrationFailure):
    """Too few matched stars have a reference magnitude in the band."""


@dataclass(frozen=True, eq=False)
class _Plane:
    """Background-subtracted electrons, variance and masks on their way through the task."""

    electrons: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    masks: dict[str, np.ndarray]
    background: Background


class CalibrateImageConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):  # type: ignore[call-arg]
    """Electrons and reference stars in; image, PSF, stars and a summary out."""

    exposures = ct.Input(
        name="post_isr_image",
        doc="Electrons of the visit's only exposure.",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    references = ct.PrerequisiteInput(
        name="simulated_refcat",
        doc="Reference stars: id, ra, dec [deg], raErr, decErr [mas], mag_<band>, magErr_<band>.",
        storageClass="ArrowAstropy",
        dimensions=("htm7",),
        multiple=True,
        deferLoad=True,
        minimum=1,
    )
    image = ct.Output(
        name="preliminary_visit_image",
        doc="Background-subtracted pixels in nJy by the preliminary zero point, with the preliminary WCS.",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    psf = ct.Output(
        name="preliminary_visit_psf",
        doc="The PSF: one row a term of its polynomial.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    stars = ct.Output(
        name="single_visit_star_detector",
        doc="Sources of the detector with positions, fluxes and, for PSF stars, moments.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    summary = ct.Output(
        name="preliminary_visit_summary_detector",
        doc="One row: zero point, WCS, PSF size, sky and depth.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class CalibrateImageConfig(pb.PipelineTaskConfig, pipelineConnections=CalibrateImageConnections):  # type: ignore[call-arg]
    """Thresholds of a detector's calibration."""

    cosmicRaySigma = pc.Field[float](doc="Least significance of a cosmic ray's Laplacian.", default=6.0)
    cosmicRayContrast = pc.Field[float](doc="Least contrast of a cosmic ray against a star's core.", default=5.0)
    backgroundBox = pc.Field[int](doc="Side of the boxes in which the sky is estimated, pixels.", default=128)
    varianceSmoothing = pc.Field[float](doc="Sigma of the Gaussian that smooths the variance, pixels.", default=1.0)
    psfThreshold = pc.Field[float](doc="Least significance of the pixels of a PSF star.", default=5.0)
    psfMinSignalToNoise = pc.Field[float](doc="Least signal to noise of a PSF star.", default=20.0)
    psfWidthTolerance = pc.Field[float](doc="Largest relative deviation of a PSF star's radius.", default=0.1)
    psfIsolation = pc.Field[float](doc="Least distance of a PSF star to the next source, pixels.", default=12.0)
    psfHalfSize = pc.Field[int](doc="Reach of the PSF's image from its middle pixel.", default=12)
    psfOrder = pc.RangeField[int](
        doc="Highest order of the PSF's polynomial in position.", default=2, min=0, max=2, inclusiveMax=True
    )
    detectionThreshold = pc.Field[float](doc="Least signal to noise of a source.", default=5.0)
    detectionMinArea = pc.Field[int](doc="Least number of pixels above the threshold.", default=3)
    astrometrySearch = pc.Field[float](doc="Largest pointing error along an axis, pixels.", default=20.0)
    astrometryMinSignalToNoise = pc.Field[float](doc="Least signal to noise of a star to match.", default=10.0)
    photometryMinSignalToNoise = pc.Field[float](doc="Least signal to noise for the zero point.", default=20.0)
    photometryMinStars = pc.Field[int](doc="Least number of stars for the zero point.", default=3)
    nominalSky = pc.DictField[str, float](
        doc="Sky in electrons a pixel and second at which the effective time is the exposure time, by band.",
        default={"u": 3.0, "g": 12.0, "r": 23.0, "i": 43.0, "z": 60.0, "y": 60.0},
    )


class CalibrateImageTask(pb.PipelineTask):
    """Calibrate one detector of one visit by its own stars and a reference catalogue."""

    ConfigClass = CalibrateImageConfig
    _DefaultName = "calibrateImage"

    def runQuantum(
        self,
        butlerQC: pb.QuantumContext,
        inputRefs: pb.InputQuantizedConnection,
        outputRefs: pb.OutputQuantizedConnection,
    ) -> None:
        """Calibrate; what the data don't allow becomes a quantum with partial outputs (none) and a reason."""
        inputs = butlerQC.get(inputRefs)
        if len(inputs["exposures"]) != 1:
            raise ValueError(f"a visit is one exposure here, not {len(inputs['exposures'])}")
        facts = facts_of(butlerQC.quantum.dataId)
        references = gather_references(handle.get() for handle in inputs["references"])
        try:
            outputs = self.run(inputs["exposures"][0], references, facts)
        except pb.AlgorithmError as failure:
            raise pb.AnnotatedPartialOutputsError.annotate(failure, self, log=self.log) from failure
        butlerQC.put(outputs, outputRefs)

    def run(self, exposure: MaskedImage, references: Table, facts: VisitFacts) -> pb.Struct:
        """Return ``image``, ``psf``, ``stars`` and ``summary`` (see `CalibrateImageConnections`).

        Parameters
        ----------
        exposure
            Electrons with the sky in, and a WCS good to some pixels.
        references
            Reference stars around the detector (columns as the connection says).
        facts
            What the dimensions know of the visit.

        Raises
        ------
        TooFewPsfStars, AstrometryFailed, ZeroPointFailed
            If the data don't allow that calibration.
        """
        pixels = self._clean(exposure)
        psf, candidates, used = self._fit_psf(pixels)
        kernel = psf.image_at(*psf.centre_xy).astype(np.float32)
        sn = signal_to_noise(pixels.electrons, pixels.variance, pixels.bad, kernel)
        found = detect(sn, pixels.bad, self.config.detectionThreshold, self.config.detectionMinArea)
        sources = measure_sources(pixels.electrons, pixels.variance, pixels.bad, psf, found.x, found.y, unit=u.electron)
        astrometry = self._solve_astrometry(sources, references, exposure)
        zero_point, photometry_rows = self._fit_zero_point(sources, references, astrometry, facts.band)
        scale = nanojansky_per_electron(zero_point.value)
        candidate_rows = rows_near(sources, candidates.x, candidates.y, MATCH_PX)
        psf_rows = candidate_rows[used & (candidate_rows >= 0)]
        for name in ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr"):
            sources[name] = sources[name].value * scale * u.nJy
        stars = identified(sources, facts, astrometry.wcs)
        stars["extendedness"] = extendedness(stars["psfFlux"].value, stars["apFlux"].value, _flags(stars, psf_rows))
        stars["calibPsfCandidate"] = _flags(stars, candidate_rows[candidate_rows >= 0])
        stars["calibPsfUsed"] = _flags(stars, psf_rows)
        stars["calibAstrometryUsed"] = _flags(stars, astrometry.star)
        stars["calibPhotometryUsed"] = _flags(stars, photometry_rows)
        add_moments(stars, pixels.electrons, psf, np.unique(psf_rows))
        calibration = DetectorCalibration(
            pixels.electrons.shape,
            psf,
            astrometry,
            zero_point,
            pixels.background,
            float(np.mean(pixels.variance[~pixels.bad])),
            len(stars),
        )
        summary = summary_row(facts, calibration, self.config.nominalSky[facts.band])
        for name in ("nSources", "nPsfStars", "nAstrometryStars", "nPhotometryStars"):
            self.metadata[name] = int(summary[name][0])
        for name in ("zeroPoint", "psfFwhm", "astrometryResidual", "skyBackground"):
            self.metadata[name] = float(summary[name].value[0])
        image = masked_image(
            pixels.electrons * np.float32(scale),
            pixels.variance * np.float32(scale**2),
            {**pixels.masks, "DETECTED": found.segmentation > 0},
            unit=u.nJy,
            wcs=astrometry.wcs,
            metadata={"zeroPoint": zero_point.value, "band": facts.band, "visit": facts.visit},
        )
        return pb.Struct(image=image, psf=psf.to_table(), stars=stars, summary=summary)

    def _clean(self, exposure: MaskedImage) -> _Plane:
        """Find cosmic rays, subtract the sky with sources masked, fill holes, smooth the variance."""
        electrons = exposure.image.array
        defects, saturated = plane(exposure, "BAD"), plane(exposure, "SAT")
        known_bad = defects | saturated
        hits = find_cosmic_rays(
            electrons,
            known_bad,
            read_noise=camera.READ_NOISE_ELECTRON,
            saturation=0.95 * camera.SATURATION_ELECTRON,
            sigma=self.config.cosmicRaySigma,
            contrast=self.config.cosmicRayContrast,
        )
        bad = known_bad | hits
        first = fit_background(electrons, bad, self.config.backgroundBox)
        background = fit_background(electrons, bad | source_mask(electrons, first), self.config.backgroundBox)
        holes = defects | hits
        filled = fill_holes(electrons - background.level, holes, bad)
        variance = smooth_variance(exposure.variance.array, bad, self.config.varianceSmoothing)
        masks = {"BAD": defects, "SAT": saturated, "CR": hits, "INTRP": holes}
        self.metadata["n_cosmic_ray_pixels"] = int(hits.sum())
        return _Plane(filled, variance, bad, masks, background)

    def _fit_psf(self, pixels: _Plane) -> tuple[PolynomialPsf, PsfCandidates, np.ndarray]:
        """Return the PSF, the candidates, and which of them it was fitted to."""
        chosen = select_psf_stars(
            pixels.electrons,
            pixels.variance,
            pixels.bad,
            threshold=self.config.psfThreshold,
            min_signal_to_noise=self.config.psfMinSignalToNoise,
            width_tolerance=self.config.psfWidthTolerance,
            isolation_px=self.config.psfIsolation,
        )
        try:
            psf, used = fit_psf(
                pixels.electrons,
                pixels.variance,
                pixels.bad,
                chosen.x,
                chosen.y,
                half=self.config.psfHalfSize,
                max_order=self.config.psfOrder,
            )
        except TooFewStarsError as error:
            raise TooFewPsfStars(str(error), n_psf_stars=error.n_stars) from error
        return psf, chosen, used

    def _solve_astrometry(self, stars: Table, references: Table, exposure: MaskedImage) -> AstrometricSolution:
        """Return the WCS; its ``star`` are rows of ``stars``, its ``reference`` rows of ``references``."""
        sn = np.asarray(stars["psfFlux"] / stars["psfFluxErr"])
        rows = np.flatnonzero((sn > self.config.astrometryMinSignalToNoise) & ~stars["flag"])
        rows = rows[np.argsort(-sn[rows], kind="stable")]
        catalogue = Reference(
            np.asarray(references["ra"], np.float64),
            np.asarray(references["dec"], np.float64),
            np.hypot(np.asarray(references["raErr"]), np.asarray(references["decErr"])) / np.sqrt(2),
        )
        # A poor fit of the PSF means a blend, whose position is worse than its noise.
        misfit = np.sqrt(np.maximum(np.asarray(stars["psfChi2"])[rows], 1))
        error_px = np.hypot(stars["xErr"].value[rows], stars["yErr"].value[rows]) / np.sqrt(2) * misfit
        try:
            found = solve_astrometry(
                stars["x"].value[rows],
                stars["y"].value[rows],
                error_px,
                catalogue,
                wcs_of(exposure),
                shape=exposure.image.array.shape,
                search_px=self.config.astrometrySearch,
            )
        except AstrometryError as error:
            raise AstrometryFailed(str(error), n_matched=error.n_matched) from error
        return AstrometricSolution(found.wcs, rows[found.star], found.reference, found.residual_mas)

    def _fit_zero_point(
        self, stars: Table, references: Table, solution: AstrometricSolution, band: str
    ) -> tuple[ZeroPoint, np.ndarray]:
        """Return the zero point and the rows of ``stars`` it rests on."""
        flux, error = (np.asarray(stars[name], np.float64)[solution.star] for name in ("psfFlux", "psfFluxErr"))
        magnitude = np.asarray(references[f"mag_{band}"], np.float64)[solution.reference]
        magnitude_err = np.asarray(references[f"magErr_{band}"], np.float64)[solution.reference]
        usable = (flux > self.config.photometryMinSignalToNoise * error) & np.isfinite(magnitude)
        if usable.sum() < self.config.photometryMinStars:
            raise ZeroPointFailed(
                f"{usable.sum()} stars with a {band} reference magnitude, {self.config.photometryMinStars} needed",
                n_photometry_stars=int(usable.sum()),
            )
        fitted = fit_zero_point(flux[usable], error[usable], magnitude[usable], magnitude_err[usable])
        return fitted, solution.star[usable][fitted.used]


def gather_references(shards: Iterable[Table]) -> Table:
    """Return the rows of all shards of a reference catalogue, each star once."""
    tables = list(shards)
    together = vstack(tables, metadata_conflicts="silent") if len(tables) > 1 else tables[0]
    return together[np.unique(np.asarray(together["id"]), return_index=True)[1]]


def _flags(table: Table, rows: np.ndarray) -> np.ndarray:
    """Return booleans, one a row of the table, true for the given rows."""
    flags = np.zeros(len(table), bool)
    flags[rows] = True
    return flags
