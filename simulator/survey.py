"""What a simulated survey is: its size, its schedule and its seed; everything else follows from it to the bit.

Belongs here: the configuration, its presets, the visits that it implies and the random streams.
Doesn't: objects on the sky (`simulator.sky`), pixels (`simulator.observe`), or the delivery (`simulator.delivery`).
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from drp_tasks.camera import DETECTORS, GAP_PX, NOMINAL_EXPOSURE_S, PIXEL_SCALE_ARCSEC, Detector
from drp_tasks.skymap import TangentSkyMap

CODE_VERSION = 1
"""Raise it whenever the same configuration gives other bits than before."""

FIRST_SEQ_NUM = 1
SECONDS_BETWEEN_EXPOSURES = 40.0
DARK_TIME_EXTRA_S = 1.0
"""The read-out makes the dark time longer than the exposure by this much."""

MJD_OF_FIRST_DAY_OBS = 61345.0
"""MJD (TAI) of 2026-11-01, the first day_obs."""

FIRST_DAY_OBS = 20261101
NIGHT_START_DAYS = 1.0 + 3.0 / 24.0
"""The first exposure of a day_obs begins at 3 h of the next calendar day."""

TRACT_MARGIN_ARCSEC = 8.0
"""The tract is wider than the detectors' field by this much on each side."""


class Stream(enum.IntEnum):
    """Independent random streams of a survey; the values are part of the seeds."""

    SKY = 1
    TRANSIENTS = 2
    SCHEDULE = 3
    DETECTOR = 4
    CALIBRATION = 5
    OBSERVATION = 6
    REFERENCE_CATALOGUE = 7
    MESSAGES = 8


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of the schedule: where it points and through what air.

    Parameters
    ----------
    id
        Visit id, which is the exposure id.
    day_obs, seq_num
        The visit's day_obs, and its sequence number in it.
    band
        Band, such as ``"r"``.
    epoch
        Number of the epoch: one pass through all bands; transients live in one epoch.
    mjd_begin
        TAI at which the shutter opens.
    dither_arcsec
        Offset of the field's centre from the tract's, along the tract's pixel axes.
    rotation_rad
        Position angle of the detectors' y axis, from north through east.
    fwhm_px
        Seeing at the centre of the camera, in pixels.
    ellipticity
        Reduced shear of the PSF at the centre of the camera.
    extinction_mag
        What clouds take away, the same over the whole field.
    sky_factor
        Brightness of the sky relative to the nominal one.
    turbulence_px
        Amplitudes of the eight terms by which air moves images, in pixels.
    pointing_error_px
        By how much the header's WCS is off, along the detector's axes.
    """

    id: int
    day_obs: int
    seq_num: int
    band: str
    epoch: int
    mjd_begin: float
    dither_arcsec: tuple[float, float]
    rotation_rad: float
    fwhm_px: float
    ellipticity: tuple[float, float]
    extinction_mag: float
    sky_factor: float
    turbulence_px: tuple[float, ...]
    pointing_error_px: tuple[float, float]

    @property
    def exposure_time_s(self) -> float:
        """Time for which the shutter is open."""
        return NOMINAL_EXPOSURE_S

    @property
    def dark_time_s(self) -> float:
        """Time for which dark current gathers."""
        return NOMINAL_EXPOSURE_S + DARK_TIME_EXTRA_S

    @property
    def mjd_end(self) -> float:
        """TAI at which the shutter closes."""
        return self.mjd_begin + self.exposure_time_s / 86400.0


@dataclass(frozen=True)
class Survey:
    """Configuration of a simulated survey.

    Parameters
    ----------
    name
        Name of the survey, for people.
    seed
        The one number from which all randomness comes.
    detector_ids
        Detectors that take part; a square block of the raft.
    detector_px
        Side of a detector.
    bands
        Bands, in the order in which an epoch goes through them.
    days
        Number of day_obs, from 2026-11-01 on.
    epochs_per_day
        Passes through all bands in each day_obs.
    patches_per_side
        Patches along one side of the tract.
    stars_per_arcmin2, galaxies_per_arcmin2
        Densities of objects on the sky.
    transients
        Number of transients, each alive for one epoch.
    field_centre_deg
        Right ascension and declination of the tract's centre.
    skymap_name
        Name of the skymap in data IDs.
    bias_frames, dark_frames, flat_frames
        Calibration exposures that are combined, for each detector (and filter, for flats).
    single_file_visits
        Visits whose raws travel as single files instead of a zip: every n-th, where n = visits // this number.
    """

    name: str
    seed: int = 20261101
    detector_ids: tuple[int, ...] = tuple(detector.id for detector in DETECTORS)
    detector_px: int = 512
    bands: tuple[str, ...] = ("g", "r", "i")
    days: int = 2
    epochs_per_day: int = 2
    patches_per_side: int = 2
    stars_per_arcmin2: float = 25.0
    galaxies_per_arcmin2: float = 40.0
    transients: int = 40
    field_centre_deg: tuple[float, float] = (53.1, -28.1)
    skymap_name: str = "sim_v1"
    bias_frames: int = 5
    dark_frames: int = 3
    flat_frames: int = 5
    single_file_visits: int = 2

    def __post_init__(self) -> None:
        if not self.detector_ids or not self.bands or self.visit_count == 0:
            raise ValueError(f"Survey {self.name} has no detectors, no bands or no visits.")

    @property
    def digest(self) -> str:
        """Eight hex digits of the configuration and of the code's version: the same digest, the same bits."""
        text = json.dumps({"code": CODE_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.blake2s(text.encode(), digest_size=4).hexdigest()

    @property
    def epochs(self) -> int:
        """Number of epochs in all."""
        return self.days * self.epochs_per_day

    @property
    def visit_count(self) -> int:
        """Number of visits in all."""
        return self.epochs * len(self.bands)

    @property
    def raw_count(self) -> int:
        """Number of raws in all."""
        return self.visit_count * len(self.detector_ids)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """Detectors that take part, in the order of their ids."""
        return tuple(DETECTORS[number] for number in sorted(self.detector_ids))

    @property
    def block_centre_px(self) -> tuple[float, float]:
        """Centre of the detectors that take part, in focal-plane pixels from the camera's centre."""
        x, y = np.mean([detector.focal_plane_centre(self.detector_px) for detector in self.detectors], axis=0)
        return float(x), float(y)

    @property
    def tract_px(self) -> int:
        """Side of the tract in pixels: the detectors' field with a margin, a whole number of patches."""
        columns = len({detector.column for detector in self.detectors})
        block = columns * self.detector_px + (columns - 1) * GAP_PX
        margin = int(TRACT_MARGIN_ARCSEC / PIXEL_SCALE_ARCSEC)
        return (block + 2 * margin) // (2 * self.patches_per_side) * (2 * self.patches_per_side)

    @property
    def skymap(self) -> TangentSkyMap:
        """The one tract on which the survey is built."""
        return TangentSkyMap(
            name=self.skymap_name,
            tract_centres=(self.field_centre_deg,),
            patches_x=self.patches_per_side,
            patches_y=self.patches_per_side,
            patch_px=self.tract_px // self.patches_per_side,
        )

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """The schedule: each epoch goes once through all bands, and turns the camera by 90 degrees."""
        visits = []
        for epoch in range(self.epochs):
            day, epoch_of_day = divmod(epoch, self.epochs_per_day)
            for index, band in enumerate(self.bands):
                seq_num = FIRST_SEQ_NUM + epoch_of_day * len(self.bands) + index
                visits.append(self._visit(day, seq_num, band, epoch))
        return tuple(visits)

    def generator(self, stream: Stream, *ids: int) -> np.random.Generator:
        """Random numbers of one stream for one thing, independent of what was drawn for any other."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, int(stream), *ids]))

    def _visit(self, day: int, seq_num: int, band: str, epoch: int) -> Visit:
        day_obs = FIRST_DAY_OBS + day
        visit_id = day_obs * 100_000 + seq_num
        rng = self.generator(Stream.SCHEDULE, visit_id)
        dither_x, dither_y = rng.uniform(-6.0, 6.0, 2)
        shear_1, shear_2 = rng.normal(0.0, 0.02, 2)
        error_x, error_y = np.clip(rng.normal(0.0, 4.0, 2), -12.0, 12.0)
        return Visit(
            id=visit_id,
            day_obs=day_obs,
            seq_num=seq_num,
            band=band,
            epoch=epoch,
            mjd_begin=MJD_OF_FIRST_DAY_OBS + day + NIGHT_START_DAYS + seq_num * SECONDS_BETWEEN_EXPOSURES / 86400.0,
            dither_arcsec=(float(dither_x), float(dither_y)),
            rotation_rad=float(rng.uniform(-0.03, 0.03) + (epoch % 2) * np.pi / 2),
            fwhm_px=float(rng.uniform(0.7, 1.05) / PIXEL_SCALE_ARCSEC),
            ellipticity=(float(shear_1), float(shear_2)),
            extinction_mag=float(rng.uniform(0.0, 0.15)),
            sky_factor=float(rng.uniform(0.9, 1.4)),
            turbulence_px=tuple(float(term) for term in rng.normal(0.0, 0.035, 8)),
            pointing_error_px=(float(error_x), float(error_y)),
        )


DEMO = Survey(name="demo")
"""One raft, gri, two day_obs of six visits: 108 raws that a laptop reduces in minutes."""

CI = Survey(name="ci", detector_ids=(0, 1, 3, 4), patches_per_side=1, transients=20)
"""Four detectors and one patch: the smallest survey on which every step has something to do."""

ACCEPTANCE = Survey(
    name="acceptance",
    detector_ids=(0, 1, 3, 4),
    detector_px=1024,
    bands=("u", "g", "r", "i", "z", "y"),
    days=3,
    patches_per_side=3,
    transients=120,
    single_file_visits=6,
)
"""Four larger detectors in six bands: 36 visits, 144 raws, five times the demonstration's pixels."""

PRESETS = {survey.name: survey for survey in (DEMO, CI, ACCEPTANCE)}
