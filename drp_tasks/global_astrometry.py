"""The global astrometric calibration: corrections to all WCSs of a tract, such that stars stay where they are.

Belongs here: from tables to the tangent plane, and from the corrections there to a new WCS for each detector.
Doesn't: the fit of the corrections (`drp_tasks.field_correction`), a detector's first WCS (`drp_tasks.astrometry`),
or applying the new ones (`drp_tasks.update_visit_summary`, `drp_tasks.recalibrate_star`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table, vstack
from astropy.wcs import WCS
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.astrometry import fit_tan_sip, pixel_scale_mas
from drp_tasks.field_correction import AstrometricCorrection, FieldModel, Footprint, StarPositions, fit_corrections
from drp_tasks.images import wcs_from_text, wcs_to_text
from drp_tasks.matching import from_tangent_plane, sky_position, to_tangent_plane, unit_vectors
from drp_tasks.visit_detector_index import find_visit_detectors

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]


def footprint_of(visit: int, detector: int, wcs: WCS, corners: Floats, tangent: tuple[float, float]) -> Footprint:
    """Lay a grid over a detector, and see where its preliminary WCS puts it.

    Parameters
    ----------
    visit, detector
        The detector of a visit.
    wcs
        Its preliminary WCS.
    corners
        Corners of the detector on the sky in degrees, shape (4, 2).
    tangent
        Tangent point in degrees.

    Returns
    -------
    footprint
        With 15 × 15 points.
    """
    corner_x, corner_y = wcs.all_world2pix(corners[:, 0], corners[:, 1], 0)
    x, y = np.meshgrid(np.linspace(corner_x.min(), corner_x.max(), 15), np.linspace(corner_y.min(), corner_y.max(), 15))
    ra, dec = wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    xi, eta = to_tangent_plane(ra, dec, *tangent)
    return Footprint(visit, detector, x.ravel(), y.ravel(), xi, eta)


def refit_wcs(footprint: Footprint, grid: Floats, tangent: tuple[float, float], *, order: int = 5) -> tuple[WCS, float]:
    """Fit a TAN-SIP WCS to a detector's corrected grid.

    Parameters
    ----------
    footprint
        The detector.
    grid
        Corrected standard coordinates in arcsec, shape (n_points, 2).
    tangent
        Tangent point of these in degrees.
    order
        Order of the distortion.

    Returns
    -------
    wcs
        The new WCS of 0-based pixels.
    error_mas
        Largest distance of a grid point from where this WCS puts it.
    """
    ra, dec = from_tangent_plane(grid[:, 0], grid[:, 1], *tangent)
    middle = (float(np.mean(footprint.x)), float(np.mean(footprint.y)))
    wcs = fit_tan_sip(footprint.x, footprint.y, ra, dec, weight=np.ones(len(ra)), centre_xy=middle, order=order)
    ra, dec = wcs.all_pix2world(footprint.x, footprint.y, 0)
    xi, eta = to_tangent_plane(ra, dec, *tangent)
    return wcs, float(1000 * np.hypot(xi - grid[:, 0], eta - grid[:, 1]).max())


def _star_positions(
    members: Table, stars: Table, footprints: Sequence[Footprint], scale_mas: Floats, tangent: tuple[float, float],
    *, floor_mas: float,
) -> StarPositions:  # fmt: skip
    """Take the members' positions to the tangent plane; ``scale_mas`` is each footprint's pixel scale."""
    visit, detector = [place.visit for place in footprints], [place.detector for place in footprints]
    footprint = find_visit_detectors(members["visit"], members["detector"], visit, detector)
    members, footprint = members[footprint >= 0], footprint[footprint >= 0]
    position = np.stack(to_tangent_plane(members["ra"], members["dec"], *tangent), axis=-1)
    error_px = np.hypot(np.asarray(members["xErr"], float), np.asarray(members["yErr"], float)) / np.sqrt(2)
    sigma = np.hypot(error_px * scale_mas[footprint], floor_mas) / 1000
    good = np.isfinite(position).all(axis=1) & np.isfinite(sigma)
    star_id = np.asarray(stars["isolatedStarId"], np.int64)
    order = np.argsort(star_id)
    star = order[np.searchsorted(star_id[order], np.asarray(members["isolatedStarId"], np.int64))]
    reference_error = np.hypot(np.asarray(stars["refRaErr"], float), np.asarray(stars["refDecErr"], float))
    return StarPositions(
        star=star[good],
        footprint=footprint[good],
        position=position[good],
        sigma=sigma[good],
        reference=np.stack(to_tangent_plane(stars["refRa"], stars["refDec"], *tangent), axis=-1),
        reference_sigma=reference_error / np.sqrt(2) / 1000,
    )


class FitAstrometryConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Data sets of `FitAstrometryTask`."""

    members = ct.Input(
        doc="Sources of the tract's isolated stars.",
        name="isolated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )
    stars = ct.Input(
        doc="The tract's isolated stars, with their reference positions.",
        name="isolated_star_association",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )
    summaries = ct.Input(
        doc="Summaries of the visits that overlap the tract, with the preliminary WCSs.",
        name="preliminary_visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    catalog = ct.Output(
        doc="New WCSs: visit, detector, wcs (FITS cards), nStars, residualMas.",
        name="gbdesAstrometricFitSkyWcsCatalog",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class FitAstrometryConfig(pb.PipelineTaskConfig, pipelineConnections=FitAstrometryConnections):  # type: ignore[call-arg]
    """How flexible the corrections are, and how good the measurements."""

    maxOrder = pc.RangeField[int](doc="Largest order of a visit's polynomial.", default=5, min=0, max=7)
    starsPerTerm = pc.Field[int](doc="Stars for each term of a visit's polynomial, else its order falls.", default=8)
    visitPrior = pc.Field[float](doc="Width of the prior of a polynomial's coefficients [mas].", default=10.0)
    detectorPrior = pc.Field[float](doc="Width of the prior of a detector's own terms [mas]; 0: none.", default=3.0)
    centroidFloor = pc.Field[float](doc="Added to centroid errors in quadrature [mas].", default=5.0)
    maxIterations = pc.Field[int](doc="Limit of iterations.", default=100)
    sipOrder = pc.RangeField[int](doc="Order of the new WCSs' distortion.", default=5, min=2, max=6)

    @property
    def model(self) -> FieldModel:
        """The model's flexibility as a value."""
        return FieldModel(
            max_order=self.maxOrder,
            stars_per_term=self.starsPerTerm,
            visit_prior_mas=self.visitPrior,
            detector_prior_mas=self.detectorPrior,
        )


class FitAstrometryTask(pb.PipelineTask):
    """Refit the WCSs of all visits of a tract to each other and to the reference catalogue."""

    ConfigClass = FitAstrometryConfig
    _DefaultName = "fitAstrometry"
    config: FitAstrometryConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the tract's stars and its visits' summaries, and write new WCSs."""
        inputs = butlerQC.get(inputRefs)
        handles = sorted(inputs.pop("summaries"), key=lambda handle: handle.dataId["visit"])
        butlerQC.put(self.run(**inputs, summaries=[handle.get() for handle in handles]), outputRefs)

    def run(self, members: Table, stars: Table, summaries: Sequence[Table]) -> pb.Struct:
        """Fit.

        Parameters
        ----------
        members, stars
            The tract's isolated stars.
        summaries
            Summaries of the visits.

        Returns
        -------
        struct
            ``catalog``: a row for each detector of each visit that has enough stars.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no visit has enough stars.
        """
        summary = vstack(list(summaries), metadata_conflicts="silent")
        ra, dec = sky_position(unit_vectors(stars["ra"], stars["dec"]).mean(axis=0))
        tangent = (float(ra), float(dec))
        wcs_of_row = [wcs_from_text(str(text)) for text in summary["wcs"]]
        footprints = [
            footprint_of(int(row["visit"]), int(row["detector"]), wcs, _corners(row), tangent)
            for row, wcs in zip(summary, wcs_of_row, strict=True)
        ]
        scale_mas = np.array([pixel_scale_mas(wcs) for wcs in wcs_of_row])
        positions = _star_positions(members, stars, footprints, scale_mas, tangent, floor_mas=self.config.centroidFloor)
        correction = fit_corrections(footprints, positions, self.config.model, max_iterations=self.config.maxIterations)
        catalog = self._catalog(footprints, correction, tangent)
        self.metadata["n_stars"] = len(stars)
        self.metadata["n_measurements"] = len(positions.star)
        self.metadata["n_reference_stars"] = int(np.isfinite(positions.reference).all(axis=1).sum())
        self.metadata["n_iterations"] = correction.n_iterations
        if not correction.converged:
            self.log.warning("The astrometric fit still moved after %d iterations.", correction.n_iterations)
        return pb.Struct(catalog=catalog)

    def _catalog(
        self, footprints: Sequence[Footprint], correction: AstrometricCorrection, tangent: tuple[float, float]
    ) -> Table:
        rows, errors_mas = [], []
        for footprint, grid, n_stars, residual_mas in zip(
            footprints, correction.grid, correction.n_stars, correction.residual_mas, strict=True
        ):
            if grid is not None:
                wcs, error_mas = refit_wcs(footprint, grid, tangent, order=self.config.sipOrder)
                errors_mas.append(error_mas)
                rows.append((footprint.visit, footprint.detector, wcs_to_text(wcs), n_stars, residual_mas))
        if not rows:
            raise pb.NoWorkFound("no visit has enough stars for an astrometric fit")
        self.metadata["n_visit_detectors"] = len(rows)
        self.metadata["largest_wcs_error_mas"] = max(errors_mas)
        self.metadata["median_residual_mas"] = float(np.nanmedian(correction.residual_mas))
        return Table(
            rows=rows,
            names=["visit", "detector", "wcs", "nStars", "residualMas"],
            dtype=[np.int64, np.int32, str, np.int32, np.float32],
            units={"residualMas": u.mas},
        )


def _corners(row: Any) -> Floats:
    return np.array([[float(row[f"raCorner{k}"]), float(row[f"decCorner{k}"])] for k in range(4)])
