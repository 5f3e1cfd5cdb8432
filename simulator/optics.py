"""How light falls on a detector: where a point of the sky lands, and how it is smeared.

Belongs here: dither, rotation, distortion and turbulence as one mapping from field coordinates to detector pixels, the
PSF and how it varies, the true zero point, and the telescope's own, imperfect WCS.
Doesn't: drawing (`simulator.observe`), or what the detector does to the charge (`simulator.detector`).
"""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from astropy.wcs import WCS

from drp_tasks.camera import DETECTORS, NOMINAL_ZERO_POINTS, PIXEL_SCALE_ARCSEC, focal_plane_width_px
from simulator.sky import field_to_sky
from simulator.survey import Survey, Visit

DISTORTION = 5e-4
"""Radial stretch at one focal-plane width from the centre."""

MOFFAT_BETA = 3.2


@dataclass(frozen=True)
class Optics:
    """One detector in one visit.

    Parameters
    ----------
    survey
        The survey, for the size of detectors and the field.
    visit
        The visit.
    detector_id
        The detector.
    """

    survey: Survey
    visit: Visit
    detector_id: int

    @property
    def size_px(self) -> int:
        """Side of the detector in pixels."""
        return self.survey.detector_px

    @property
    def focal_plane_px(self) -> int:
        """Width of the camera's focal plane, the unit in which distances from its centre are counted."""
        return focal_plane_width_px(self.size_px)

    def to_detector(self, x_arcsec: np.ndarray, y_arcsec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Detector pixels (0-based, also far outside of the detector) of field coordinates.

        Parameters
        ----------
        x_arcsec, y_arcsec
            Field coordinates, of any shape.

        Returns
        -------
        x, y : `numpy.ndarray`
            Pixel coordinates, the shape of the input.
        """
        x, y = self._undistorted(np.asarray(x_arcsec), np.asarray(y_arcsec))
        width = self.focal_plane_px
        stretch = 1.0 + DISTORTION * ((x / width) ** 2 + (y / width) ** 2)
        x, y = x * stretch, y * stretch
        # Smooth motions of the air over the focal plane, and ripples along each axis.
        u, v, a = 2 * x / width, 2 * y / width, self.visit.turbulence_px
        x = x + a[0] * u * v + a[1] * v**2 + a[2] * u**2 + a[6] * np.sin(5 * u + 99 * a[3])
        y = y + a[3] * u * v + a[4] * v**2 + a[5] * u**2 + a[7] * np.sin(5 * v + 99 * a[0])
        offset_x, offset_y = self._corner
        return x - offset_x, y - offset_y

    def fwhm_px(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Full width at half maximum of the PSF at detector pixels, before its shear."""
        u, v = self._normalised(x, y)
        return self.visit.fwhm_px * (1.0 + 0.08 * (u**2 + v**2) + 0.02 * u)

    def psf_shear(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reduced shear of the PSF at detector pixels."""
        u, v = self._normalised(x, y)
        shear_1, shear_2 = self.visit.ellipticity
        return shear_1 + 0.03 * u, shear_2 + 0.02 * v

    def psf(self, x: float, y: float) -> galsim.GSObject:
        """PSF of unit flux at a detector pixel, in units of pixels: seeing and shape vary over the focal plane."""
        at = np.array(x), np.array(y)
        shear_1, shear_2 = self.psf_shear(*at)
        return galsim.Moffat(beta=MOFFAT_BETA, fwhm=float(self.fwhm_px(*at))).shear(g1=shear_1, g2=shear_2)

    @property
    def zero_point(self) -> float:
        """AB magnitude that gives one electron in the exposure, where the sensitivity is one."""
        return NOMINAL_ZERO_POINTS[self.visit.band] - self.visit.extinction_mag

    @property
    def boresight_deg(self) -> tuple[float, float]:
        """Right ascension and declination at the camera's centre."""
        cos, sin = np.cos(self.visit.rotation_rad), np.sin(self.visit.rotation_rad)
        block_x, block_y = self.survey.block_centre_px
        x = self.visit.dither_arcsec[0] - (cos * block_x - sin * block_y) * PIXEL_SCALE_ARCSEC
        y = self.visit.dither_arcsec[1] - (sin * block_x + cos * block_y) * PIXEL_SCALE_ARCSEC
        ra, dec = field_to_sky(self.survey, np.array(x), np.array(y))
        return float(ra), float(dec)

    def header_wcs(self) -> WCS:
        """WCS that the telescope believes in: linear, without the distortion, off by the pointing error."""
        cos, sin = np.cos(self.visit.rotation_rad), np.sin(self.visit.rotation_rad)
        scale = PIXEL_SCALE_ARCSEC / 3600.0
        x, y = self._undistorted(np.array(0.0), np.array(0.0))
        offset_x, offset_y = self._corner
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.crval = self.survey.field_centre_deg
        wcs.wcs.cd = np.array([[-scale * cos, scale * sin], [scale * sin, scale * cos]])
        wcs.wcs.crpix = [
            float(x) - offset_x + 1.0 + self.visit.pointing_error_px[0],
            float(y) - offset_y + 1.0 + self.visit.pointing_error_px[1],
        ]
        wcs.wcs.set()
        return wcs

    @property
    def _corner(self) -> tuple[float, float]:
        """Focal-plane coordinates of the centre of the detector's first pixel."""
        centre_x, centre_y = DETECTORS[self.detector_id].focal_plane_centre(self.size_px)
        return centre_x - self.size_px / 2 + 0.5, centre_y - self.size_px / 2 + 0.5

    def _normalised(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Focal-plane coordinates of detector pixels in units of the focal plane's width."""
        offset_x, offset_y = self._corner
        return (x + offset_x) / self.focal_plane_px, (y + offset_y) / self.focal_plane_px

    def _undistorted(self, x_arcsec: np.ndarray, y_arcsec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Focal-plane pixels through perfect optics and still air."""
        cos, sin = np.cos(self.visit.rotation_rad), np.sin(self.visit.rotation_rad)
        block_x, block_y = self.survey.block_centre_px
        dx = (x_arcsec - self.visit.dither_arcsec[0]) / PIXEL_SCALE_ARCSEC
        dy = (y_arcsec - self.visit.dither_arcsec[1]) / PIXEL_SCALE_ARCSEC
        return cos * dx + sin * dy + block_x, -sin * dx + cos * dy + block_y
