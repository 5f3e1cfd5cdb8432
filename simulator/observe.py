"""One raw: the sky drawn through the optics onto a detector, and read out.

Belongs here: which objects are drawn, how, and the steps from the catalogue to adu.
Doesn't: what is on the sky (`simulator.sky`), the optics (`simulator.optics`), what the detector does
(`simulator.detector`).
"""

from __future__ import annotations

from types import MappingProxyType

import galsim
import numpy as np

from drp_tasks.camera import PIXEL_SCALE_ARCSEC
from simulator.detector import add_cosmic_rays, bleed, detector_truth, expose, read_out
from simulator.galaxies import Galaxies, add_galaxies, shear_matrix
from simulator.optics import Optics
from simulator.sky import Sky, make_sky, make_transients
from simulator.survey import Stream, Survey, Visit

SKY_ELECTRON = MappingProxyType({"u": 90.0, "g": 350.0, "r": 700.0, "i": 1300.0, "z": 2000.0, "y": 2400.0})
"""Sky background of a nominal exposure in each pixel, for each band."""

SKY_GRADIENT = 0.01
"""Relative change of the sky over one detector."""

STAMP_MARGIN_PX = 20
"""Objects whose centres lie further outside of the detector than this are not drawn."""


def observe(survey: Survey, visit: Visit, detector_id: int) -> np.ndarray:
    """Simulate one raw; the same arguments give the same bits.

    Returns
    -------
    adu : `numpy.ndarray` of `numpy.uint16`
        Shape (size, size + overscan).
    """
    rng = survey.generator(Stream.OBSERVATION, visit.id, detector_id)
    truth = detector_truth(survey, detector_id)
    light = sky_background(survey, visit) + objects(survey, visit, detector_id)
    electrons = expose(light, visit.dark_time_s, truth, rng)
    add_cosmic_rays(electrons, rng)
    bleed(electrons)
    return read_out(electrons, truth, rng)


def sky_background(survey: Survey, visit: Visit) -> np.ndarray:
    """Expected electrons of the sky in each pixel, where the sensitivity is one."""
    x = np.arange(survey.detector_px) / survey.detector_px - 0.5
    level = SKY_ELECTRON[visit.band] * visit.sky_factor
    return np.broadcast_to(level * (1.0 + SKY_GRADIENT * x), (survey.detector_px, survey.detector_px))


def objects(survey: Survey, visit: Visit, detector_id: int) -> np.ndarray:
    """Expected electrons of all objects in each pixel, where the sensitivity is one.

    Returns
    -------
    light : `numpy.ndarray` of `float`
        Shape (size, size), nowhere negative.
    """
    optics = Optics(survey, visit, detector_id)
    sky = make_sky(survey)
    canvas = galsim.ImageD(survey.detector_px, survey.detector_px, xmin=0, ymin=0)
    x, y = optics.to_detector(sky.x_arcsec, sky.y_arcsec)
    flux = 10 ** (-0.4 * (sky.mag[visit.band] - optics.zero_point))
    drawn = _within(x, y, survey.detector_px)
    for index in np.flatnonzero(drawn & sky.is_star):
        _add_point(canvas, optics, x[index], y[index], flux[index])
    _add_galaxies(canvas.array, optics, sky, np.flatnonzero(drawn & ~sky.is_star), x, y, flux)
    transients = make_transients(survey)
    x, y = optics.to_detector(transients.x_arcsec, transients.y_arcsec)
    flux = 10 ** (-0.4 * (transients.mag - optics.zero_point))
    for index in np.flatnonzero(_within(x, y, survey.detector_px) & (transients.epoch == visit.epoch)):
        _add_point(canvas, optics, x[index], y[index], flux[index])
    # Transforms ring at the level of their accuracy.
    return canvas.array.clip(0.0)


def _within(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    low, high = -STAMP_MARGIN_PX, size + STAMP_MARGIN_PX
    return (x > low) & (x < high) & (y > low) & (y < high)


def _add_point(canvas: galsim.Image, optics: Optics, x: float, y: float, flux: float) -> None:
    """Add a star with its PSF, pixel response included; what its stamp cuts off stays below the noise."""
    size = int(np.clip(32 + 20 * np.log10(max(flux, 2e3) / 2e3), 32, 120))
    column, row = round(float(x)), round(float(y))
    stamp = galsim.ImageD(size + 1, size + 1, xmin=column - size // 2, ymin=row - size // 2)
    overlap = stamp.bounds & canvas.bounds
    if overlap.isDefined():
        centre = galsim.PositionD(float(x), float(y))
        (optics.psf(x, y) * flux).drawImage(stamp, scale=1.0, center=centre, method="no_pixel")
        canvas[overlap] += stamp[overlap]


def _add_galaxies(
    light: np.ndarray, optics: Optics, sky: Sky, chosen: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray
) -> None:
    """Add the chosen galaxies of the sky; ``x``, ``y`` and ``flux`` have an entry for each of its objects."""
    x, y = x[chosen], y[chosen]
    add_galaxies(
        light,
        Galaxies(
            x=x,
            y=y,
            flux_electron=flux[chosen],
            half_light_radius_px=sky.half_light_radius_arcsec[chosen] / PIXEL_SCALE_ARCSEC,
            sersic_index=sky.sersic_index[chosen],
            shape=shear_matrix(sky.shear_1[chosen], sky.shear_2[chosen], -optics.visit.rotation_rad),
            psf_fwhm_px=optics.fwhm_px(x, y),
            psf_shape=shear_matrix(*optics.psf_shear(x, y)),
        ),
    )
