"""Objects measured: fluxes in all bands at one position, from images on which each child of a blend is alone.

Belongs here: positions in the reference band, forced fluxes in all bands, what is primary.
Doesn't: finding objects (`drp_tasks.detect_objects`), taking blends apart (`drp_tasks.object_layers`), the numerics of
fluxes (`drp_tasks.photometry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
import sep
from astropy.table import Table
from lsst.images import Image
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.assemble_coadd import COADD_DIMENSIONS
from drp_tasks.images import start_xy, wcs_of
from drp_tasks.object_bands import PATCH_DIMENSIONS, Band, pair_bands
from drp_tasks.object_layers import Floats, Layer, Objects, layers
from drp_tasks.photometry import aperture_photometry, psf_photometry
from drp_tasks.psf import PolynomialPsf
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.source_measurement import APERTURE_PX, FLAG_USABLE, extendedness

KRON_MEASURE_RADIUS = 6.0
KRON_FACTOR = 2.5
KRON_LIMITS = (1.5, 6.0)
"""Kron radii, in units of the footprint's semi-axes, are kept within these limits."""


def kron_radii(image: NDArray[np.float32], bad: NDArray[np.bool_], objects: Objects, origin: tuple[int, int]) -> Floats:
    """Return Kron radii (n,) in units of the footprints' semi-axes, within `KRON_LIMITS`."""
    radius, _ = sep.kron_radius(
        image,
        objects.x - origin[0],
        objects.y - origin[1],
        objects.semi_major,
        objects.semi_minor,
        objects.theta,
        KRON_MEASURE_RADIUS,
        mask=bad,
    )
    return np.clip(np.nan_to_num(radius, nan=KRON_LIMITS[0]), *KRON_LIMITS)


def ellipse_fluxes(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    bad: NDArray[np.bool_],
    objects: Objects,
    scale: Floats,
    origin: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Sum the pixels in the objects' ellipses times a scale (n,); return fluxes and their uncertainties (n,)."""
    flux, error, _ = sep.sum_ellipse(
        image,
        objects.x - origin[0],
        objects.y - origin[1],
        objects.semi_major,
        objects.semi_minor,
        objects.theta,
        scale,
        var=variance,
        mask=bad,
        subpix=3,
    )
    return flux, error


@dataclass(eq=False)
class BandFluxes:
    """One band's measurements, arrays (n,), filled layer by layer; NaN where there is none."""

    psf: Floats
    psf_err: Floats
    aperture: Floats
    aperture_err: Floats
    core: Floats
    kron: Floats
    kron_err: Floats
    half_light_radius: Floats
    usable: Floats

    @classmethod
    def empty(cls, n: int) -> BandFluxes:
        """Nothing measured yet."""
        return cls(*(np.full(n, np.nan) for _ in range(9)))


def psf_half_light_radius(psf: PolynomialPsf, radius_px: float) -> float:
    """Return the radius [pix] that holds half of the PSF's light within ``radius_px``, at the PSF's own centre."""
    stamp = np.ascontiguousarray(psf.image_at(*psf.centre_xy))
    radius, _ = sep.flux_radius(stamp, [float(psf.half)], [float(psf.half)], [radius_px], 0.5)
    return float(radius[0])


class MeasureObjectConnections(pb.PipelineTaskConnections, dimensions=PATCH_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `MeasureObjectTask`."""

    coadds = ct.Input(
        name="deep_coadd",
        doc="Coadds of all bands [nJy].",
        storageClass="MaskedImageV2",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    psfs = ct.Input(
        name="deep_coadd_input_psf",
        doc="PSFs of their visits.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    peaks = ct.Input(
        name="object_peak", doc="Objects to measure.", storageClass="ArrowAstropy", dimensions=PATCH_DIMENSIONS
    )
    footprints = ct.Input(
        name="object_footprint",
        doc="Footprint of each pixel.",
        storageClass="ImageV2",
        dimensions=PATCH_DIMENSIONS,
    )
    skymap = ct.Input(
        name="skyMap", doc="Geometry of tracts and patches.", storageClass="StructuredDataDict", dimensions=("skymap",)
    )
    objects = ct.Output(
        name="object_patch",
        doc="Objects: parents and children, fluxes in all bands at one position.",
        storageClass="ArrowAstropy",
        dimensions=PATCH_DIMENSIONS,
    )


class MeasureObjectConfig(pb.PipelineTaskConfig, pipelineConnections=MeasureObjectConnections):  # type: ignore[call-arg]
    """Configuration of `MeasureObjectTask`."""

    apertureRadius = pc.Field[float](doc="Radius of apFlux [pix].", default=APERTURE_PX)
    coreRadius = pc.Field[float](doc="Radius of the aperture that tells galaxies from stars [pix].", default=5.0)
    starSizeTolerance = pc.Field[float](
        doc="Largest deviation of a star's half-light radius from the PSF's, as a part of it.", default=0.1
    )
    starSignalToNoise = pc.Field[float](doc="Least S/N of the stars that set extendedness to zero.", default=50.0)


class MeasureObjectTask(pb.PipelineTask):
    """Measure objects in all bands, each at its position in its reference band."""

    ConfigClass = MeasureObjectConfig
    config: MeasureObjectConfig
    _DefaultName = "measureObject"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the patch's coadds and peaks, and write its objects."""
        coadds = {handle.dataId["band"]: handle.get() for handle in butlerQC.get(inputRefs.coadds)}
        psfs = {handle.dataId["band"]: handle.get() for handle in butlerQC.get(inputRefs.psfs)}
        data_id = butlerQC.quantum.dataId
        outputs = self.run(
            pair_bands(coadds, psfs),
            butlerQC.get(inputRefs.peaks),
            butlerQC.get(inputRefs.footprints),
            skymap=butlerQC.get(inputRefs.skymap),
            tract=data_id["tract"],
            patch=data_id["patch"],
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        bands: Sequence[Band],
        peaks: Table,
        footprints: Image,
        *,
        skymap: Mapping[str, Any],
        tract: int,
        patch: int,
    ) -> pb.Struct:
        """Measure objects.

        Parameters
        ----------
        bands
            The patch's coadds.
        peaks, footprints
            What `drp_tasks.detect_objects.MergeObjectDetectionTask` found on them.
        skymap
            The dataset ``skyMap``.
        tract, patch
            Where we are.

        Returns
        -------
        struct
            ``objects``: one row a peak, in the same order; fluxes of parents are NaN.
        """
        single = np.asarray(peaks["nChild"]) == 0
        found = Objects.from_peaks(peaks[single])
        reference = np.asarray(peaks["refBand"][single], str)
        placed = self._place(bands, found, footprints.array, reference)
        fluxes = self._measure_all(bands, placed, footprints.array, reference)
        table = self._tabulate(bands, peaks, placed, fluxes, reference)
        geometry = TangentSkyMap.from_dict(dict(skymap))
        x, y = np.asarray(table["x"], float), np.asarray(table["y"], float)
        primary = geometry.contains(patch, x, y) & single
        table.add_column(np.full(len(table), tract, np.int32), name="tract", index=2)
        table.add_column(np.full(len(table), patch, np.int32), name="patch", index=3)
        table.add_column(primary, name="detect_isPrimary", index=4)
        self.metadata["n_objects"] = int(single.sum())
        self.metadata["n_primary"] = int(primary.sum())
        return pb.Struct(objects=table)

    def _place(
        self, bands: Sequence[Band], found: Objects, footprints: NDArray[np.int32], reference: NDArray[np.str_]
    ) -> Objects:
        """Fit each object's position in its reference band."""
        x, y = found.x.copy(), found.y.copy()
        for band in bands:
            mine = reference == band.name
            if not mine.any():
                continue
            for layer in layers(band, found, footprints, mine):
                members = layer.members
                fit = psf_photometry(
                    layer.image,
                    band.coadd.variance.array,
                    band.unusable,
                    band.psf,
                    found.x[members],
                    found.y[members],
                    start_xy=start_xy(band.coadd),
                )
                x[members], y[members] = fit.x, fit.y
        return found.at(x, y)

    def _measure_all(
        self, bands: Sequence[Band], objects: Objects, footprints: NDArray[np.int32], reference: NDArray[np.str_]
    ) -> dict[str, BandFluxes]:
        """Deblend every band at the final positions and measure it; Kron apertures are the reference band's."""
        deblended = {band.name: list(layers(band, objects, footprints)) for band in bands}
        scale = np.full(len(objects), np.nan)
        for band in bands:
            for layer in deblended[band.name]:
                members = layer.members[reference[layer.members] == band.name]
                radius = kron_radii(layer.image, band.unusable, objects.take(members), start_xy(band.coadd))
                scale[members] = KRON_FACTOR * radius
        return {band.name: self._measure(band, deblended[band.name], objects, scale) for band in bands}

    def _measure(self, band: Band, parts: Sequence[Layer], objects: Objects, kron_scale: Floats) -> BandFluxes:
        """Measure one band."""
        result = BandFluxes.empty(len(objects))
        variance, bad, origin = band.coadd.variance.array, band.unusable, start_xy(band.coadd)
        for layer in parts:
            members = layer.members
            x, y = objects.x[members], objects.y[members]
            point = psf_photometry(layer.image, variance, bad, band.psf, x, y, False, start_xy=origin)
            disc = aperture_photometry(layer.image, variance, bad, x, y, self.config.apertureRadius, start_xy=origin)
            core = aperture_photometry(layer.image, variance, bad, x, y, self.config.coreRadius, start_xy=origin)
            kron, kron_err = ellipse_fluxes(
                layer.image, variance, bad, objects.take(members), kron_scale[members], origin
            )
            result.psf[members], result.psf_err[members] = point.flux, point.flux_err
            result.usable[members] = point.usable
            result.aperture[members], result.aperture_err[members] = disc.flux, disc.flux_err
            result.core[members] = core.flux
            result.half_light_radius[members] = disc.half_light_radius
            result.kron[members], result.kron_err[members] = kron, kron_err
        return result

    def _tabulate(
        self,
        bands: Sequence[Band],
        peaks: Table,
        objects: Objects,
        fluxes: Mapping[str, BandFluxes],
        reference: NDArray[np.str_],
    ) -> Table:
        """Write one row a peak."""
        single = np.asarray(peaks["nChild"]) == 0
        x, y = (np.array(peaks[name], np.float64) for name in ("x", "y"))
        x[single], y[single] = objects.x, objects.y
        ra, dec = wcs_of(bands[0].coadd).all_pix2world(x, y, 0)
        table = Table({name: peaks[name] for name in ("objectId", "parentObjectId")})
        table["ra"], table["dec"] = ra * u.deg, dec * u.deg
        table["x"], table["y"] = x * u.pix, y * u.pix
        for name in ("nChild", "refBand", "nDetectedBands", "significance"):
            table[name] = peaks[name]
        of_reference = np.full(len(objects), np.nan, np.float32)
        columns: dict[str, Any] = {}
        for band in bands:
            measured = fluxes[band.name]
            extended = extendedness(measured.psf, measured.core, self._stars(band, measured))
            of_reference[reference == band.name] = extended[reference == band.name]
            flagged = ~(measured.usable >= FLAG_USABLE) | ~np.isfinite(measured.psf)
            for name, values in (
                ("psfFlux", measured.psf),
                ("psfFluxErr", measured.psf_err),
                ("apFlux", measured.aperture),
                ("apFluxErr", measured.aperture_err),
                ("kronFlux", measured.kron),
                ("kronFluxErr", measured.kron_err),
            ):
                columns[f"{band.name}_{name}"] = _spread(values, single) * u.nJy
            columns[f"{band.name}_halfLightRadius"] = _spread(measured.half_light_radius, single) * u.pix
            columns[f"{band.name}_extendedness"] = _spread(extended, single).astype(np.float32)
            columns[f"{band.name}_flag"] = np.where(single, _spread(flagged.astype(float), single) == 1, True)
        table["refExtendedness"] = _spread(of_reference, single).astype(np.float32)
        for name, column in columns.items():
            table[name] = column
        return table

    def _stars(self, band: Band, measured: BandFluxes) -> NDArray[np.bool_]:
        """Choose objects (n,) that are bright and as wide as the PSF."""
        width = psf_half_light_radius(band.psf, self.config.apertureRadius)
        bright = measured.psf > self.config.starSignalToNoise * measured.psf_err
        return bright & (np.abs(measured.half_light_radius - width) < self.config.starSizeTolerance * width)


def _spread(values: NDArray[np.floating], single: NDArray[np.bool_]) -> Floats:
    """Put the values of what was measured into a column of all rows, NaN for parents."""
    column = np.full(len(single), np.nan)
    column[single] = values
    return column
