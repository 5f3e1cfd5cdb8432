"""Cleaning: the sky is taken away, holes are filled from around them, the variance is smoothed."""

import numpy as np
import pytest

from drp_tasks.cleaning import fill_holes, fit_background, smooth_variance, source_mask
from tests.drp_tasks.star_fields import READ_NOISE, SKY, star_field


def test_the_sky_is_found_under_stars_to_a_fraction_of_an_electron():
    field = star_field(seed=42)
    slope = 20 * np.arange(320, dtype=np.float32) / 320
    image = field.image + np.float32(SKY) + slope
    first = fit_background(image, field.bad, 128)
    second = fit_background(image, source_mask(image, first), 128)
    residual = second.level - SKY - slope
    assert abs(residual.mean()) < 0.6
    assert residual.std() < 2
    assert second.noise == pytest.approx(np.sqrt(SKY + READ_NOISE**2), rel=0.05)


def test_sources_are_masked_with_their_surroundings():
    field = star_field(seed=43)
    image = field.image + np.float32(SKY)
    masked = source_mask(image, fit_background(image, field.bad, 128))
    for x, y in zip(field.x, field.y, strict=True):
        assert masked[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5].all()


def test_masking_noise_does_not_bias_the_sky():
    nothing = np.zeros((512, 512), bool)
    biases = []
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(SKY, 28, nothing.shape).astype(np.float32)
        first = fit_background(noise, nothing, 128)
        masked = source_mask(noise, first)
        assert masked.mean() < 0.02
        biases.append(fit_background(noise, masked, 128).level.mean() - first.level.mean())
    assert abs(np.mean(biases)) < 0.05


def test_holes_take_the_mean_of_their_good_neighbours_and_nothing_else_changes():
    y, x = np.mgrid[:30, :30]
    image = (2.0 * x + y).astype(np.float32)
    holes = np.zeros(image.shape, bool)
    holes[:, 15] = True
    bad = holes.copy()
    spoiled = np.where(holes, np.nan, image).astype(np.float32)
    filled = fill_holes(spoiled, holes, bad)
    assert np.allclose(filled[5:25], image[5:25], atol=1e-3)
    assert np.array_equal(filled[~holes], image[~holes])
    assert np.isnan(spoiled[0, 15])


def test_a_hole_without_good_neighbours_is_empty():
    image = np.full((20, 20), 7.0, np.float32)
    everywhere = np.ones(image.shape, bool)
    assert not fill_holes(image, everywhere, everywhere).any()


def test_smoothing_keeps_the_mean_variance_and_bad_pixels_do_not_spread():
    rng = np.random.default_rng(3)
    variance = rng.normal(800, 30, (128, 128)).astype(np.float32)
    bad = np.zeros(variance.shape, bool)
    bad[60, 60] = True
    variance[60, 60] = 1e8
    smooth = smooth_variance(variance, bad, 1.0)
    assert smooth.mean() == pytest.approx(800, rel=0.005)
    assert smooth.std() < 12
    assert smooth.max() < 900
