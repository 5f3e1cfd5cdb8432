"""The difference of a visit image and its template: matched in PSF and flux, with white noise.

Belongs here: choosing the stamps, subtracting with masks and variances, the PSF of the difference.
Doesn't: the kernel's mathematics (`drp_tasks.alard_lupton`), or what is found in the difference
(`drp_tasks.dia_source`).

The variance is that of independent images. A visit that is part of its own template shares noise with it, so that its
difference scatters less than its variance says (0.7 times, if the template is made of three visits), and what is faint
in it is lessened by its share of the template; what is bright is clipped from the template as an artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import lsst.images as li
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from drp_tasks.alard_lupton import KernelFit, convolve, decorrelation_kernel, fit_kernel
from drp_tasks.build_template import decode_counts
from drp_tasks.images import MASK_PLANES, UNUSABLE, masked_image, plane, unusable, wcs_of
from drp_tasks.psf import PolynomialPsf


class TooFewStampsError(pb.AlgorithmError):
    """Too few bright sources lie where both images are good for a matching kernel."""

    def __init__(self, n_candidates: int) -> None:
        super().__init__(f"of {n_candidates} bright sources too few can be used for the matching kernel")
        self.n_candidates = n_candidates

    @property
    def metadata(self) -> dict[str, int]:
        """How many bright sources there were."""
        return {"n_candidates": self.n_candidates}


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image in flux, its variance, and where it may not be used; all (ny, nx)."""

    array: NDArray[np.floating]
    variance: NDArray[np.floating]
    bad: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Difference:
    """Science minus matched template, on the science image's pixels.

    Parameters
    ----------
    pixels
        The difference; zero where bad.
    fit
        The matching kernel and its stamps.
    whitening
        The kernel that decorrelated the noise.
    pull
        Robust scatter of difference over its expected error, over the good pixels; one if the errors are right.
    """

    pixels: Pixels
    fit: KernelFit
    whitening: NDArray[np.floating]
    pull: float

    def psf(self, science: PolynomialPsf) -> PolynomialPsf:
        """PSF of the difference, from the science image's."""
        images = [convolve(image, self.whitening) for image in science.coefficients]
        return replace(science, coefficients=np.stack(images).astype(np.float64))


def subtract(
    science: Pixels,
    template: Pixels,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    order: int = 1,
    background_order: int = 1,
    model_error: NDArray[np.floating] | float = 0.01,
    grow_px: int = 2,
) -> Difference | None:
    """Subtract a template from an image after matching it in PSF, flux and sky.

    Noise of the difference is made white, so that its variance, its PSF and a matched filter belong together.

    Parameters
    ----------
    science, template
        Images on the same pixels, in the same unit; the template may be wider by the same margin on each side, so that
        sources at the edge find their light.
    x, y
        Positions of stamps for the kernel.
    order, background_order
        Orders of the kernel's and the sky's variation over the image.
    model_error
        Error of the matched template as a fraction of its flux a pixel, one or for each science pixel; added to the
        difference's variance.
    grow_px
        By how much the template's unusable pixels grow, as the kernel spreads them.

    Returns
    -------
    difference : `Difference` or `None`
        `None` if too few stamps are usable.
    """
    margin = (template.array.shape[0] - science.array.shape[0]) // 2
    inner = tuple(slice(margin, margin + n) for n in science.array.shape)
    missing = template.bad[inner]
    both = ~(science.bad | missing)
    if not both.any():
        return None
    science_noise, template_noise = (
        float(np.median(variance[both])) for variance in (science.variance, template.variance[inner])
    )
    template_variance = np.where(missing, template_noise, template.variance[inner])
    template_flux = np.where(template.bad, 0, template.array).astype(np.float32)
    fit = fit_kernel(
        np.where(science.bad, 0, science.array),
        template_flux,
        variance=science.variance + template_variance,
        target_bad=science.bad,
        reference_bad=template.bad,
        x=x,
        y=y,
        margin=margin,
        order=order,
        background_order=background_order,
        model_error=float(np.min(model_error)),
    )
    if fit is None:
        return None
    matched = fit.kernel.apply(template_flux, margin)
    whitening = decorrelation_kernel(fit.kernel.central_image, science_noise, template_noise)
    bad = science.bad | (binary_dilation(template.bad, iterations=grow_px)[inner] if template.bad.any() else missing)
    array = convolve(np.where(bad, 0, science.array - matched), whitening)
    variance = science.variance + fit.kernel.flux_ratio**2 * template_variance
    faint = ~bad & (np.abs(matched) < np.sqrt(variance))
    pull = 1.4826 * float(np.median(np.abs(array[faint] / np.sqrt(variance[faint])))) if faint.any() else float("nan")
    variance = (variance + (model_error * matched) ** 2).astype(np.float32)
    return Difference(Pixels(np.where(bad, 0, array).astype(np.float32), variance, bad), fit, whitening, pull)


class SubtractImagesConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):  # type: ignore[call-arg]
    """Data sets of `SubtractImagesTask`."""

    visitImage = ct.Input(
        doc="Calibrated image.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    visitPsf = ct.Input(
        doc="PSF of the calibrated image.",
        name="visit_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    sources = ct.Input(
        doc="Sources of the calibrated image, of which the kernel's stamps are chosen.",
        name="source_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    template = ct.Input(
        doc="Template on the same pixels and a border around them.",
        name="template_detector",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    visitCounts = ct.Input(
        doc="Number of visits that each pixel of the template is made of, in runs of equal numbers.",
        name="template_detector_visit_counts",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = ct.Output(
        doc="Calibrated image minus matched template, with white noise.",
        name="difference_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    differencePsf = ct.Output(
        doc="PSF of the difference.",
        name="difference_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    kernel = ct.Output(
        doc="Coefficients of the kernel that matched the template.",
        name="difference_kernel",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class SubtractImagesConfig(pb.PipelineTaskConfig, pipelineConnections=SubtractImagesConnections):  # type: ignore[call-arg]
    """Stamps, orders and errors of the matching."""

    stampSignalToNoise = pc.Field[float](doc="Least S/N of a source whose surroundings become a stamp.", default=30.0)
    maxStamps = pc.Field[int](doc="Most stamps; the brightest are taken.", default=60)
    kernelOrder = pc.Field[int](doc="Order of the kernel's variation over the detector.", default=1)
    backgroundOrder = pc.Field[int](doc="Order of the sky's variation over the detector.", default=1)
    modelError = pc.Field[float](
        doc="Error of the matched template as a fraction of its flux in a pixel: PSF, WCS, interpolation.", default=0.01
    )
    patchworkError = pc.Field[float](
        doc="Added to it, times the relative difference, where the template is made of more or fewer visits than in "
        "most of the detector: its PSF is another one there than the kernel was fitted to.",
        default=0.25,
    )


class SubtractImagesTask(pb.PipelineTask):
    """Match the template to the visit image and subtract it."""

    ConfigClass = SubtractImagesConfig
    _DefaultName = "subtractImages"
    config: SubtractImagesConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Subtract one detector-visit; annotate the failure if no kernel can be had."""
        inputs = butlerQC.get(inputRefs)
        try:
            outputs = self.run(**inputs)
        except pb.AlgorithmError as error:
            raise pb.AnnotatedPartialOutputsError.annotate(error, self, log=self.log) from error
        butlerQC.put(outputs, outputRefs)

    def run(
        self, visitImage: li.MaskedImage, visitPsf: Table, sources: Table, template: li.MaskedImage, visitCounts: Table
    ) -> pb.Struct:
        """Subtract.

        Parameters
        ----------
        visitImage, template
            Images on the same pixels, nJy; the template is wider by a border.
        visitPsf
            PSF of the visit image as a table.
        sources
            Sources measured on the visit image.
        visitCounts
            Number of visits in each pixel of the template, as `drp_tasks.build_template.encode_counts` makes it.

        Returns
        -------
        struct
            ``difference`` (masked image, nJy), ``differencePsf`` and ``kernel`` (tables).

        Raises
        ------
        TooFewStampsError
            If no kernel can be fitted.
        """
        science = Pixels(visitImage.image.array, visitImage.variance.array, unusable(visitImage))
        reference = Pixels(template.image.array, template.variance.array, unusable(template))
        counts = decode_counts(visitCounts, reference.bad.shape)
        chosen = stamp_sources(sources, self.config.stampSignalToNoise, self.config.maxStamps)
        difference = subtract(
            science,
            reference,
            np.asarray(sources["x"], float)[chosen],
            np.asarray(sources["y"], float)[chosen],
            order=self.config.kernelOrder,
            background_order=self.config.backgroundOrder,
            model_error=self.config.modelError + self.config.patchworkError * patchwork(counts, science.bad.shape),
        )
        if difference is None:
            raise TooFewStampsError(len(chosen))
        self.metadata["n_stamps"] = difference.fit.n_stamps
        self.metadata["kernel_chi2"] = difference.fit.chi2
        self.metadata["flux_ratio"] = difference.fit.kernel.flux_ratio
        self.metadata["pull"] = difference.pull
        planes = {name: plane(visitImage, name) for name in MASK_PLANES.names if name != "DETECTED"}
        margin = (template.image.array.shape[0] - science.bad.shape[0]) // 2
        inner = tuple(slice(margin, margin + n) for n in science.bad.shape)
        planes["SAT"] = planes["SAT"] | plane(template, "SAT")[inner]
        planes["NO_DATA"] = planes["NO_DATA"] | (difference.pixels.bad & ~unusable(visitImage, _other_than_no_data()))
        return pb.Struct(
            difference=masked_image(
                difference.pixels.array,
                difference.pixels.variance,
                planes,
                unit=u.nJy,
                wcs=wcs_of(visitImage),
            ),
            differencePsf=difference.psf(PolynomialPsf.from_table(visitPsf)).to_table(),
            kernel=difference.fit.kernel.to_table(),
        )


def patchwork(count: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.floating]:
    """Tell where a template is made of other visits than in most of the detector.

    Parameters
    ----------
    count
        Number of visits in each pixel of the template, maybe with a border; 0 where there is none.
    shape
        Rows and columns of the detector.

    Returns
    -------
    difference : `numpy.ndarray`
        Relative difference from the median number, of the detector's shape; 0 where there is no template.
    """
    margin = (count.shape[0] - shape[0]) // 2
    inner = count[margin : margin + shape[0], margin : margin + shape[1]].astype(float)
    usual = float(np.median(inner[inner > 0])) if (inner > 0).any() else 1.0
    return np.where(inner > 0, np.abs(inner / usual - 1), 0.0)


def stamp_sources(sources: Table, signal_to_noise: float, most: int) -> NDArray[np.int64]:
    """Return the rows of the brightest unflagged sources, brightest first."""
    flux, error = np.asarray(sources["psfFlux"], float), np.asarray(sources["psfFluxErr"], float)
    good = ~np.asarray(sources["flag"], bool) & (flux > signal_to_noise * error)
    rows = np.flatnonzero(good)
    return rows[np.argsort(-flux[rows], kind="stable")][:most]


def _other_than_no_data() -> tuple[str, ...]:
    return tuple(name for name in UNUSABLE if name != "NO_DATA")
