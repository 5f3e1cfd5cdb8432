"""Images with their masks, variances, units and projections: the one place that knows how `lsst.images` wants them.

Belongs here: building and taking apart `lsst.images` objects, the names of the mask planes, WCS to and from text.
Doesn't: reading or writing them (the Butler does), or any measurement on their pixels.

Pixel coordinates are 0-based and absolute: a patch image whose box starts at (1000, 2000) has its first pixel's centre
there, and its WCS speaks of the same coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from astropy.io.fits import Header
from astropy.wcs import WCS, Sip
from lsst.images import Box, GeneralFrame, Image, Mask, MaskedImage, MaskPlane, MaskSchema, SkyProjection

MASK_PLANES = MaskSchema(
    [
        MaskPlane("BAD", "Defect of the detector: the pixel never measures anything."),
        MaskPlane("SAT", "Saturated, or reached by the charge of a saturated pixel."),
        MaskPlane("CR", "Hit by a cosmic ray."),
        MaskPlane("EDGE", "Too near the edge for a kernel that was applied."),
        MaskPlane("NO_DATA", "No input covers the pixel."),
        MaskPlane("INTRP", "The value was interpolated from neighbours."),
        MaskPlane("DETECTED", "Belongs to the footprint of a detection."),
        MaskPlane("CLIPPED", "An input was rejected as an artifact."),
    ]
)
"""Every mask plane of the survey, in bit order; all fit one byte."""

UNUSABLE = ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "CLIPPED")
"""Planes whose pixels no measurement may use."""

AB_NANOJANSKY = 31.4
"""AB magnitude of one nanojansky."""

_PIXEL_FRAME = GeneralFrame(unit=u.pix)
_ORIGIN_BOX = Box.from_shape((1, 1))


def masked_image(
    array: np.ndarray,
    variance: np.ndarray,
    planes: Mapping[str, np.ndarray],
    *,
    unit: u.UnitBase,
    wcs: WCS | None = None,
    start_xy: tuple[int, int] = (0, 0),
    metadata: Mapping[str, str | int | float | bool | None] | None = None,
) -> MaskedImage:
    """Make a masked image; arrays that are float32 already are shared, not copied.

    Parameters
    ----------
    array, variance
        Pixels (ny, nx), in ``unit`` and its square.
    planes
        Boolean arrays (ny, nx) by name of mask plane; planes that aren't named are clear.
    unit
        Unit of the pixels, e.g. ``astropy.units.nJy``.
    wcs
        Projection of absolute pixel coordinates to the sky.
    start_xy
        Absolute coordinates of the first pixel.
    metadata
        Scalars to travel with the image.

    Raises
    ------
    KeyError
        If a plane's name isn't one of `MASK_PLANES`.
    """
    yx0 = (start_xy[1], start_xy[0])
    bits = np.zeros((*array.shape, MASK_PLANES.mask_size), MASK_PLANES.dtype)
    for name, flagged in planes.items():
        bit = MASK_PLANES.bit(name)
        bits[..., bit.index] |= np.where(flagged, bit.mask, bit.mask.dtype.type(0))
    return MaskedImage(
        single_plane(array, unit=unit, wcs=wcs, start_xy=start_xy),
        mask=Mask(bits, schema=MASK_PLANES, yx0=yx0),
        variance=Image(np.asarray(variance, np.float32), yx0=yx0, unit=unit**2),
        metadata=dict(metadata) if metadata else None,
    )


def single_plane(
    array: np.ndarray,
    *,
    unit: u.UnitBase | None = None,
    wcs: WCS | None = None,
    start_xy: tuple[int, int] = (0, 0),
    metadata: Mapping[str, str | int | float | bool | None] | None = None,
) -> Image:
    """Make an image without mask or variance; floating-point pixels (ny, nx) become float32, others keep their type."""
    pixels = np.asarray(array, np.float32) if array.dtype.kind == "f" else array
    projection = SkyProjection.from_fits_wcs(_without_inverse(wcs), _PIXEL_FRAME) if wcs is not None else None
    return Image(
        pixels,
        yx0=(start_xy[1], start_xy[0]),
        unit=unit,
        sky_projection=projection,
        metadata=dict(metadata) if metadata else None,
    )


def plane(image: MaskedImage, name: str) -> np.ndarray:
    """Return one mask plane as booleans (ny, nx)."""
    return image.mask.get(name)


def unusable(image: MaskedImage, names: Sequence[str] = UNUSABLE) -> np.ndarray:
    """Return where any of the named planes is set, as booleans (ny, nx)."""
    mask: np.ndarray = image.mask.array
    return ((mask & image.mask.schema.bitmask(*names)) != 0).any(axis=-1)


def wcs_of(image: MaskedImage | Image) -> WCS:
    """Return the astropy WCS of an image, in its absolute pixel coordinates, with its distortion terms.

    Raises
    ------
    ValueError
        If the image has no projection, or one that FITS can't express.
    """
    projection = image.sky_projection
    wcs = projection.as_fits_wcs(_ORIGIN_BOX) if projection is not None else None
    if wcs is None:
        raise ValueError("the image has no projection that a FITS WCS can express")
    return wcs


def start_xy(image: MaskedImage | Image) -> tuple[int, int]:
    """Return the absolute coordinates (x, y) of the image's first pixel."""
    return image.bbox.start.x, image.bbox.start.y


def wcs_to_text(wcs: WCS) -> str:
    """Return a WCS as FITS cards in one string, distortion terms included, for a column of a table."""
    return _without_inverse(wcs).to_header_string(relax=True)


def wcs_from_text(text: str) -> WCS:
    """Return the WCS that `wcs_to_text` wrote."""
    return WCS(Header.fromstring(text))


def to_nanojansky(flux: np.ndarray, zero_point: float) -> np.ndarray:
    """Scale fluxes in electrons to nJy, keeping their type; ``zero_point`` is the AB magnitude of one electron."""
    return flux * nanojansky_per_electron(zero_point)


def nanojansky_per_electron(zero_point: float) -> float:
    """Return the flux in nJy of one electron, where ``zero_point`` is that electron's AB magnitude."""
    return float(10 ** (-0.4 * (zero_point - AB_NANOJANSKY)))


def _without_inverse(wcs: WCS) -> WCS:
    """Drop the approximate inverse (AP, BP) of a SIP distortion, so that every reader inverts the exact one itself."""
    if wcs.sip is None or (wcs.sip.ap is None and wcs.sip.bp is None):
        return wcs
    forward = wcs.deepcopy()
    forward.sip = Sip(wcs.sip.a, wcs.sip.b, None, None, wcs.sip.crpix)
    return forward
