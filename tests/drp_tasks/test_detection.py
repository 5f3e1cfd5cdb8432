"""Detection: a map of signal to noise that tells the truth, and sources where there are some."""

import numpy as np
import pytest

from drp_tasks.detection import detect, gaussian_kernel, signal_to_noise
from tests.drp_tasks.star_fields import FWHM_PX, StarField, star_field


@pytest.fixture(scope="module")
def field() -> StarField:
    return star_field(seed=5, flux_range=(2e3, 4e3))


def test_the_map_of_pure_noise_has_unit_variance():
    rng = np.random.default_rng(0)
    variance = rng.uniform(400, 900, (256, 256)).astype(np.float32)
    noise = (rng.normal(size=variance.shape) * np.sqrt(variance)).astype(np.float32)
    sn = signal_to_noise(noise, variance, np.zeros(variance.shape, bool), gaussian_kernel(4.0))
    assert sn.std() == pytest.approx(1.0, abs=0.03)


def test_a_source_of_the_kernels_shape_has_the_significance_of_its_flux():
    kernel = gaussian_kernel(4.0)
    image = np.zeros((81, 81), np.float32)
    reach = kernel.shape[0] // 2
    image[40 - reach : 41 + reach, 40 - reach : 41 + reach] = 1000 * kernel
    sn = signal_to_noise(image, np.full_like(image, 25.0), np.zeros(image.shape, bool), kernel)
    assert sn[40, 40] == pytest.approx(1000 * np.sqrt((kernel**2).sum()) / 5, rel=1e-4)


def test_every_star_is_found_once_where_it_is(field):
    sn = signal_to_noise(field.image, field.variance, field.bad, gaussian_kernel(FWHM_PX))
    found = detect(sn, field.bad, 5.0, 3)
    distance = np.hypot(found.x[:, None] - field.x, found.y[:, None] - field.y)
    assert (distance.min(axis=0) < 0.8).all()
    assert len(found) == len(field.x)
    assert found.segmentation[found.peak_y[0], found.peak_x[0]] == 1
    assert found.significance.min() > 5


def test_bad_pixels_neither_are_found_nor_spoil_their_surroundings(field):
    image, bad = field.image.copy(), field.bad.copy()
    image[:, 55] = np.nan
    bad[:, 55] = True
    sn = signal_to_noise(image, field.variance, bad, gaussian_kernel(FWHM_PX))
    assert np.isfinite(sn).all()
    assert (sn[:, 55] == 0).all()
    found = detect(sn, bad, 5.0, 3)
    assert len(found) == pytest.approx(len(field.x), abs=1)


def test_two_peaks_of_one_footprint_are_two_sources_unless_told_otherwise():
    y, x = np.mgrid[:60, :60]
    sn = sum(40 * np.exp(-0.5 * ((x - x0) ** 2 + (y - 30) ** 2) / 2**2) for x0 in (26, 33)).astype(np.float32)
    nowhere = np.zeros(sn.shape, bool)
    assert len(detect(sn, nowhere, 5.0, 3)) == 2
    assert len(detect(sn, nowhere, 5.0, 3, deblend_contrast=1.0)) == 1


def test_an_image_without_sources_or_without_good_pixels_gives_none():
    flat = np.zeros((64, 64), np.float32)
    everywhere = np.ones(flat.shape, bool)
    assert len(detect(flat, ~everywhere, 5.0, 3)) == 0
    assert not signal_to_noise(flat + 1, flat + 1, everywhere, gaussian_kernel(4.0)).any()


def test_the_kernel_is_normalised_odd_and_as_wide_as_asked():
    kernel = gaussian_kernel(4.0)
    middle = kernel.shape[0] // 2
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1.0, rel=1e-5)
    assert kernel[middle, middle + 2] == pytest.approx(kernel[middle, middle] / 2, rel=0.01)
