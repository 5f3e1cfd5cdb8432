"""ISR inverts a detector: what was electrons on the sky is electrons again, with the right variance and masks."""

import astropy.units as u
import numpy as np
import pytest

from drp_tasks import camera
from drp_tasks.images import plane, single_plane, wcs_of
from drp_tasks.isr import DetectorCalibs, IsrTask, remove_signature
from tests.drp_tasks.star_fields import bent_wcs

SIZE, OVERSCAN, GAIN, READ_NOISE, SATURATION, SECONDS = 64, 16, 1.6, 9.0, 9e4, 30.0


@pytest.fixture
def calibs() -> DetectorCalibs:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    bias = (3 * np.sin(x / 7.0) + rng.normal(0, 0.5, (SIZE, SIZE))).astype(np.float32)
    dark = np.full((SIZE, SIZE), 0.02, np.float32)
    dark[10, 20] = 20.0
    flat = (rng.normal(1, 0.02, (SIZE, SIZE)) * (1 - 0.1 * y / SIZE)).astype(np.float32)
    flat[:, 33] = 0.2
    return DetectorCalibs(bias, dark, flat, (flat < 0.5) | (dark > 5))


def read_out(light: np.ndarray, calibs: DetectorCalibs, rng: np.random.Generator | None) -> np.ndarray:
    """A detector's adu for electrons of light; noise only if ``rng`` is given."""
    electrons = light * calibs.flat + calibs.dark * GAIN * SECONDS
    if rng is not None:
        electrons = rng.poisson(electrons) + rng.normal(0, READ_NOISE, electrons.shape)
    pixels = np.minimum(electrons, SATURATION) / GAIN + calibs.bias
    overscan = np.zeros((SIZE, OVERSCAN))
    level = 1000 + 5 * np.sin(np.arange(SIZE))[:, None]
    return (np.hstack([pixels, overscan]) + level).astype(np.float32)


def corrected(raw: np.ndarray, calibs: DetectorCalibs):
    return remove_signature(
        raw, calibs, dark_time_s=SECONDS, gain=GAIN, read_noise=READ_NOISE, saturation=0.97 * SATURATION
    )


def test_without_noise_the_light_comes_back(calibs):
    light = np.random.default_rng(1).uniform(100, 5000, (SIZE, SIZE))
    found = corrected(read_out(light, calibs, None), calibs)
    good = ~found.bad
    assert np.allclose(found.electrons[good], light[good], rtol=1e-4, atol=0.1)
    assert found.electrons.dtype == found.variance.dtype == np.float32


def test_the_variance_is_that_of_many_exposures(calibs):
    light = np.full((SIZE, SIZE), 800.0)
    rng = np.random.default_rng(2)
    exposures = [corrected(read_out(light, calibs, rng), calibs) for _ in range(60)]
    good = ~exposures[0].bad
    scatter = np.var([one.electrons for one in exposures], axis=0, ddof=1)[good].mean()
    expected = np.mean([one.variance for one in exposures], axis=0)[good].mean()
    assert expected == pytest.approx(scatter, rel=0.02)


def test_defects_and_saturated_pixels_with_their_neighbours_are_masked(calibs):
    light = np.full((SIZE, SIZE), 500.0)
    light[40, 50] = 2e5
    found = corrected(read_out(light, calibs, None), calibs)
    assert found.bad[:, 33].all()
    assert found.bad[10, 20]
    assert found.saturated[39:42, 49:52].all()
    assert found.saturated.sum() == 9
    assert np.isfinite(found.electrons).all()


def test_a_raw_that_does_not_fit_its_calibrations_is_refused(calibs):
    with pytest.raises(ValueError, match="does not fit"):
        corrected(np.zeros((SIZE, SIZE), np.float32), calibs)


def test_the_task_carries_masks_units_and_the_headers_wcs(calibs):
    light = np.full((SIZE, SIZE), 500.0)
    light[40, 50] = 2e5
    metadata = {"DARKTIME": SECONDS}
    raw = single_plane(read_out(light, calibs, None), unit=u.adu, wcs=bent_wcs(), metadata=metadata)
    images = [single_plane(plane_) for plane_ in (calibs.bias, calibs.dark, calibs.flat)]
    task = IsrTask(config=IsrTask.ConfigClass())
    image = task.run(raw, *images, single_plane(calibs.defects.astype(np.uint8))).outputImage
    assert image.unit == u.electron
    assert np.median(image.image.array) == pytest.approx(500, rel=1e-3)
    assert np.array_equal(plane(image, "BAD"), calibs.defects)
    assert plane(image, "SAT").sum() == task.metadata["n_saturated"] == 9
    assert np.allclose(wcs_of(image).all_pix2world(5, 6, 0), bent_wcs().all_pix2world(5, 6, 0), rtol=1e-12)
    assert (GAIN, READ_NOISE, SATURATION) == (camera.GAIN, camera.READ_NOISE_ELECTRON, camera.SATURATION_ELECTRON)
