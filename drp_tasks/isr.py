"""Instrument signature removal: from the adu of a raw to the electrons that the sky left in each pixel.

Belongs here: overscan, bias, dark, flat, gain, the masks of defects and saturation, the first variance.
Doesn't: anything that looks at sources or at the sky (`drp_tasks.calibrate_image`).
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from lsst.images import Image
from lsst.pipe.base import connectionTypes as ct
from scipy.ndimage import binary_dilation

from drp_tasks import camera
from drp_tasks.images import masked_image, wcs_of


@dataclass(frozen=True, eq=False)
class DetectorCalibs:
    """What calibration exposures told of one detector, arrays (ny, nx) without overscan.

    Parameters
    ----------
    bias
        Pattern that remains after the overscan is subtracted, adu.
    dark
        Dark current, adu / s.
    flat
        Response relative to the detector's median pixel.
    defects
        Pixels that never measure anything.
    """

    bias: np.ndarray
    dark: np.ndarray
    flat: np.ndarray
    defects: np.ndarray


@dataclass(frozen=True, eq=False)
class CorrectedPixels:
    """Pixels without the instrument's signature: electrons, their variance, and masks; arrays (ny, nx)."""

    electrons: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    saturated: np.ndarray


def remove_signature(
    raw: np.ndarray,
    calibs: DetectorCalibs,
    *,
    dark_time_s: float,
    gain: float,
    read_noise: float,
    saturation: float,
) -> CorrectedPixels:
    """Invert the detector's response.

    Parameters
    ----------
    raw
        Adu (ny, nx + overscan), the overscan to the right.
    calibs
        The detector's calibrations.
    dark_time_s
        Time over which dark current gathered.
    gain
        Electrons per adu.
    read_noise
        Electrons, rms.
    saturation
        Charge above which a pixel is not linear, electrons; its neighbours are masked with it.

    Raises
    ------
    ValueError
        If the raw has no overscan or the calibrations have another shape.
    """
    ny, nx = calibs.bias.shape
    if raw.shape[0] != ny or raw.shape[1] <= nx:
        raise ValueError(f"a raw of {raw.shape} does not fit calibrations of {calibs.bias.shape} and an overscan")
    level = np.median(raw[:, nx:], axis=1, keepdims=True).astype(np.float32)
    charge = (raw[:, :nx] - level - calibs.bias) * np.float32(gain)
    saturated = binary_dilation(charge > saturation, np.ones((3, 3), bool))
    signal = charge - calibs.dark * np.float32(dark_time_s * gain)
    bad = calibs.defects | ~(calibs.flat > 0)
    response = np.where(bad, np.float32(1), calibs.flat).astype(np.float32)
    electrons = signal / response
    variance = (np.maximum(charge, 0) + np.float32(read_noise**2)) / response**2
    return CorrectedPixels(electrons.astype(np.float32), variance.astype(np.float32), bad, saturated)


class IsrConnections(pb.PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):  # type: ignore[call-arg]
    """A raw and its detector's calibrations in, electrons out."""

    raw = ct.Input(
        name="raw",
        doc="Raw in adu, overscan included, with the header's WCS.",
        storageClass="ImageV2",
        dimensions=("instrument", "exposure", "detector"),
    )
    bias = ct.PrerequisiteInput(
        name="bias",
        doc="Pattern of the bias after overscan subtraction, adu.",
        storageClass="ImageV2",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    dark = ct.PrerequisiteInput(
        name="dark",
        doc="Dark current, adu per second.",
        storageClass="ImageV2",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    flat = ct.PrerequisiteInput(
        name="flat",
        doc="Relative response to light through the physical filter.",
        storageClass="ImageV2",
        dimensions=("instrument", "detector", "physical_filter"),
        isCalibration=True,
    )
    defects = ct.PrerequisiteInput(
        name="defects",
        doc="Pixels that never measure anything: not zero where bad.",
        storageClass="ImageV2",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    outputImage = ct.Output(
        name="post_isr_image",
        doc="Electrons with variance and masks BAD and SAT, sky included, with the header's WCS.",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "exposure", "detector"),
    )


class IsrConfig(pb.PipelineTaskConfig, pipelineConnections=IsrConnections):  # type: ignore[call-arg]
    """How a raw is corrected."""

    saturationFraction = pc.RangeField[float](
        doc="Part of the camera's saturation above which a pixel is flagged SAT.",
        default=0.97,
        min=0,
        max=1,
        inclusiveMax=True,
    )


class IsrTask(pb.PipelineTask):
    """Remove the instrument's signature from one raw."""

    ConfigClass = IsrConfig
    _DefaultName = "isr"

    def run(self, raw: Image, bias: Image, dark: Image, flat: Image, defects: Image) -> pb.Struct:
        """Return ``outputImage`` for a raw and its calibrations (see `IsrConnections`)."""
        calibs = DetectorCalibs(bias.array, dark.array, flat.array, defects.array != 0)
        pixels = remove_signature(
            raw.array,
            calibs,
            dark_time_s=float(raw.metadata["DARKTIME"]),
            gain=camera.GAIN,
            read_noise=camera.READ_NOISE_ELECTRON,
            saturation=self.config.saturationFraction * camera.SATURATION_ELECTRON,
        )
        self.metadata["n_saturated"] = int(pixels.saturated.sum())
        self.metadata["n_bad"] = int(pixels.bad.sum())
        self.metadata["median_electrons"] = float(np.median(pixels.electrons))
        image = masked_image(
            pixels.electrons,
            pixels.variance,
            {"BAD": pixels.bad, "SAT": pixels.saturated},
            unit=u.electron,
            wcs=wcs_of(raw),
        )
        return pb.Struct(outputImage=image)
