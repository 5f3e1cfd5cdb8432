"""A detector calibrated by its own stars: the image, its PSF, its sources and its summary against the truth."""

from dataclasses import dataclass

import astropy.units as u
import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import DataCoordinate
from lsst.images import MaskedImage

from drp_tasks.calibrate_image import (
    AstrometryFailed,
    CalibrateImageTask,
    TooFewPsfStars,
    ZeroPointFailed,
    gather_references,
)
from drp_tasks.images import masked_image, plane, wcs_from_text, wcs_of
from drp_tasks.psf import PolynomialPsf
from drp_tasks.visit_facts import VisitFacts
from tests.drp_tasks.data_ids import visit_detector
from tests.drp_tasks.star_fields import (
    FWHM_PX,
    SKY,
    ZERO_POINT,
    StarField,
    bent_wcs,
    header_guess,
    reference_table,
    star_field,
)

FACTS = VisitFacts(2026110100003, 7, "r", "r_57", 20261101, 61345.3, 30.0)
POINTING_ERROR = (4.0, -6.0)


@dataclass(frozen=True)
class Run:
    field: StarField
    references: Table
    image: MaskedImage
    psf: Table
    stars: Table
    summary: Table
    metadata: pb.TaskMetadata


def post_isr(field: StarField) -> MaskedImage:
    """The field with its sky, a defect and a cosmic ray, as ISR leaves it."""
    electrons = field.image + np.float32(SKY)
    electrons[140, 60:75] += 2000
    defects = field.bad.copy()
    defects[:, 201] = True
    guess = header_guess(bent_wcs(), POINTING_ERROR)
    return masked_image(electrons, field.variance, {"BAD": defects}, unit=u.electron, wcs=guess)


def calibrated(field: StarField, references: Table, **config: float) -> tuple[pb.Struct, pb.TaskMetadata]:
    task = CalibrateImageTask(config=CalibrateImageTask.ConfigClass(**config))
    return task.run(post_isr(field), references, FACTS), task.metadata


@pytest.fixture(scope="module")
def run() -> Run:
    field = star_field(seed=70, n_side=6)
    references = reference_table(field, bent_wcs())
    outputs, metadata = calibrated(field, references)
    return Run(field, references, outputs.image, outputs.psf, outputs.stars, outputs.summary, metadata)


def nearest_truth(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Index of the true star at each source, and whether there is one."""
    distance = np.hypot(run.stars["x"].value[:, None] - run.field.x, run.stars["y"].value[:, None] - run.field.y)
    return distance.argmin(axis=1), distance.min(axis=1) < 1


def test_all_stars_are_found_and_nothing_else(run):
    index, real = nearest_truth(run)
    assert len(np.unique(index[real])) >= 34
    assert (~real).sum() <= 1


def test_fluxes_are_the_true_ones_in_nanojansky(run):
    index, real = nearest_truth(run)
    good = real & ~run.stars["flag"]
    true_nanojansky = run.field.flux[index] * 10 ** (-0.4 * (ZERO_POINT - 31.4))
    magnitude = -2.5 * np.log10(run.stars["psfFlux"].value[good] / true_nanojansky[good])
    assert run.stars["psfFlux"].unit == u.nJy
    assert abs(np.median(magnitude)) < 0.004
    assert 1.4826 * np.median(np.abs(magnitude - np.median(magnitude))) < 0.012


def test_sky_positions_are_right_to_milliarcseconds(run):
    index, real = nearest_truth(run)
    bright = real & ~run.stars["flag"] & (run.stars["psfFlux"] > 100 * run.stars["psfFluxErr"])
    ra, dec = bent_wcs().all_pix2world(run.field.x, run.field.y, 0)
    offset = (run.stars["dec"].value - dec[index])[bright] * 3.6e6
    assert abs(np.median(offset)) < 2
    assert 1.4826 * np.median(np.abs(offset)) < 6
    assert np.abs(run.stars["ra"].value - ra[index])[bright].max() * 3.6e6 < 40


def test_the_wcs_of_image_and_summary_are_the_true_one(run):
    x, y = np.array([40.0, 160.0, 280.0]), np.array([280.0, 160.0, 40.0])
    truth = np.array(bent_wcs().all_pix2world(x, y, 0))
    for wcs in (wcs_of(run.image), wcs_from_text(run.summary["wcs"][0])):
        assert np.abs(np.array(wcs.all_pix2world(x, y, 0)) - truth).max() * 3.6e6 < 5


def test_the_summary_tells_the_truth(run):
    row = run.summary[0]
    assert row["zeroPoint"] == pytest.approx(ZERO_POINT, abs=0.012)
    assert row["psfFwhm"] == pytest.approx(FWHM_PX * 0.2, rel=0.02)
    assert row["skyBackground"] == pytest.approx(SKY, rel=0.005)
    assert (row["visit"], row["detector"], row["band"], row["day_obs"]) == (FACTS.visit, 7, "r", 20261101)
    assert row["nPsfStars"] == run.stars["calibPsfUsed"].sum() > 20
    assert row["nAstrometryStars"] == run.stars["calibAstrometryUsed"].sum() > 20
    assert row["nPhotometryStars"] == run.stars["calibPhotometryUsed"].sum() > 20
    assert row["nSources"] == len(run.stars) == run.metadata["nSources"]
    corners = [(row[f"raCorner{k}"], row[f"decCorner{k}"]) for k in range(4)]
    assert np.mean(corners, axis=0) == pytest.approx([row["ra"], row["dec"]], abs=1e-5)


def test_the_image_is_in_nanojansky_without_sky_with_masks(run):
    assert run.image.unit == u.nJy
    assert run.image.metadata["zeroPoint"] == run.summary["zeroPoint"][0]
    assert plane(run.image, "CR")[140, 62:73].mean() > 0.8
    assert plane(run.image, "BAD")[:, 201].all()
    assert plane(run.image, "INTRP")[:, 201].all()
    empty = ~plane(run.image, "DETECTED") & ~plane(run.image, "BAD")
    pull = run.image.image.array[empty] / np.sqrt(run.image.variance.array[empty])
    assert abs(np.median(pull)) < 0.05
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.05)


def test_psf_stars_agree_with_the_psf_and_are_points(run):
    used = run.stars["calibPsfUsed"]
    residual = run.stars["starSize"][used] / run.stars["psfSize"][used] - 1
    assert abs(np.median(residual)) < 0.005
    assert np.isnan(run.stars["starSize"][~used]).all()
    assert np.median(np.abs(run.stars["extendedness"][used])) < 0.02
    assert PolynomialPsf.from_table(run.psf).n_stars == run.summary["nPsfStars"][0]
    assert (run.stars["calibPsfCandidate"] >= used).all()


def test_the_same_input_gives_the_same_output(run):
    again, _ = calibrated(run.field, run.references)
    assert np.array_equal(again.image.image.array, run.image.image.array)
    assert all(
        np.array_equal(again.stars[name], run.stars[name], equal_nan=run.stars[name].dtype.kind == "f")
        for name in run.stars.colnames
    )


def test_too_few_stars_fail_with_their_number(run):
    with pytest.raises(TooFewPsfStars) as caught:
        calibrated(run.field, run.references, psfMinSignalToNoise=1e5)
    assert caught.value.metadata == {"n_psf_stars": 0}


def test_references_of_another_place_fail_the_astrometry(run):
    elsewhere = run.references.copy()
    elsewhere["dec"] = elsewhere["dec"].value + 1.0
    with pytest.raises(AstrometryFailed) as caught:
        calibrated(run.field, elsewhere)
    assert caught.value.metadata["n_matched"] < 6


def test_references_without_the_band_fail_the_zero_point(run):
    unknown = run.references.copy()
    unknown["mag_r"] = np.nan
    with pytest.raises(ZeroPointFailed) as caught:
        calibrated(run.field, unknown)
    assert caught.value.metadata == {"n_photometry_stars": 0}


def test_a_failure_becomes_partial_outputs_with_a_reason(run):
    """What pipe_base records of a quantum whose data don't allow a calibration."""
    task = CalibrateImageTask(config=CalibrateImageTask.ConfigClass(psfMinSignalToNoise=1e5))
    context = QuantumStub(run)
    with pytest.raises(pb.AnnotatedPartialOutputsError) as caught:
        task.runQuantum(context, None, None)
    assert isinstance(caught.value.__cause__, TooFewPsfStars)
    assert task.metadata["failure"]["type"] == "drp_tasks.calibrate_image.TooFewPsfStars"
    assert context.written == []


def test_a_visit_of_two_exposures_is_refused(run):
    task = CalibrateImageTask(config=CalibrateImageTask.ConfigClass())
    with pytest.raises(ValueError, match="one exposure"):
        task.runQuantum(QuantumStub(run, exposures=2), None, None)


def test_a_reference_star_on_the_border_of_two_shards_counts_once(run):
    together = gather_references([run.references[:20], run.references[15:]])
    assert sorted(together["id"]) == sorted(run.references["id"])
    assert together["ra"].unit == u.deg


class QuantumStub:
    """As much of a quantum's context as the task asks for."""

    def __init__(self, run: Run, exposures: int = 1) -> None:
        self._inputs = {
            "exposures": [post_isr(run.field)] * exposures,
            "references": [Shard(run.references)],
        }
        self.written: list[object] = []

    @property
    def quantum(self) -> "QuantumStub":
        return self

    @property
    def dataId(self) -> DataCoordinate:
        return visit_detector()

    def get(self, refs: None) -> dict[str, list[object]]:
        return self._inputs

    def put(self, outputs: pb.Struct, refs: None) -> None:
        self.written.append(outputs)


@dataclass(frozen=True)
class Shard:
    table: Table

    def get(self) -> Table:
        return self.table
