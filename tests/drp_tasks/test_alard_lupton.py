"""A kernel turns one seeing into another, keeps fluxes, isn't misled by a variable, and leaves white noise."""

import numpy as np
import pytest

from drp_tasks.alard_lupton import (
    GaussPolynomialBasis,
    SpatialKernel,
    convolve,
    decorrelation_kernel,
    fit_kernel,
)
from tests.drp_tasks.synthetic_fields import Stars, draw, observe, scattered_stars

SHAPE = (300, 320)
NOTHING_BAD = np.zeros(SHAPE, bool)


def fit(target, reference, variance, stars, **options):
    options = {"target_bad": NOTHING_BAD, "reference_bad": NOTHING_BAD} | options
    return fit_kernel(target, reference, variance=variance, x=stars.x, y=stars.y, **options)


def noisy_pair(rng, fwhm_target, fwhm_reference, stars, ratio=1.0, target_truth=None):
    truth = ratio * draw(stars, SHAPE, fwhm_target, (0.02, -0.01)) if target_truth is None else target_truth
    target, target_variance = observe(truth, 30.0, rng)
    reference, reference_variance = observe(draw(stars, SHAPE, fwhm_reference), 20.0, rng)
    return target, reference, target_variance, reference_variance


def test_the_first_basis_function_alone_carries_flux():
    images = GaussPolynomialBasis().images
    assert images.sum((1, 2)) == pytest.approx([1.0] + [0.0] * (len(images) - 1), abs=1e-12)


def test_convolving_stamps_is_convolving_with_the_basis_images():
    basis = GaussPolynomialBasis((0.8, 1.6), (2, 1), 4)
    stamp = np.random.default_rng(1).normal(size=(1, 15, 13 + 2))
    stamps = basis.convolve_stamps(stamp)
    direct = [convolve(stamp[0], image)[4:-4, 4:-4] for image in basis.images]
    assert stamps[0] == pytest.approx(np.array(direct), abs=1e-4)


def test_a_basis_needs_a_degree_for_every_width():
    with pytest.raises(ValueError, match="as many degrees"):
        GaussPolynomialBasis((1.0, 2.0), (1,))


@pytest.mark.parametrize(("fwhm_target", "fwhm_reference"), [(5.0, 4.0), (4.5, 4.5), (4.2, 4.7)])
def test_the_kernels_sum_is_the_flux_ratio_within_one_percent(fwhm_target, fwhm_reference):
    rng = np.random.default_rng(3)
    stars = scattered_stars(SHAPE, 42, rng, faint=2e4, bright=1e6)
    target, reference, variance, reference_variance = noisy_pair(rng, fwhm_target, fwhm_reference, stars, ratio=0.83)
    found = fit(target, reference, variance + reference_variance, stars)
    assert found.kernel.flux_ratio == pytest.approx(0.83, rel=0.01)


def test_the_matched_reference_leaves_nothing_but_noise():
    rng = np.random.default_rng(4)
    stars = scattered_stars(SHAPE, 42, rng)
    target, reference, variance, reference_variance = noisy_pair(rng, 5.0, 4.0, stars)
    found = fit(target, reference, variance + reference_variance, stars)
    whitening = decorrelation_kernel(
        found.kernel.central_image, float(np.median(variance)), float(np.median(reference_variance))
    )
    left = convolve(target - found.kernel.apply(reference), whitening)
    pull = left / np.sqrt(variance + reference_variance)
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.03)
    assert pull.std() == pytest.approx(1.0, abs=0.05)


def test_a_kernel_follows_a_seeing_that_varies_over_the_detector():
    rng = np.random.default_rng(5)
    stars = scattered_stars(SHAPE, 42, rng)
    sharp = Stars(stars.x, stars.y, np.where(stars.x < SHAPE[1] / 2, stars.flux, 0))
    blunt = Stars(stars.x, stars.y, stars.flux - sharp.flux)
    truth = draw(sharp, SHAPE, 4.6) + draw(blunt, SHAPE, 5.2)
    target, reference, variance, reference_variance = noisy_pair(rng, 0, 4.0, stars, target_truth=truth)
    kernel = fit(target, reference, variance + reference_variance, stars).kernel
    left, right = kernel.image_at(40, 150), kernel.image_at(280, 150)
    assert left.max() > 1.1 * right.max()
    assert left.sum() == pytest.approx(right.sum(), rel=1e-6)


def test_a_variable_star_among_the_stamps_is_left_out():
    rng = np.random.default_rng(6)
    stars = scattered_stars(SHAPE, 36, rng, faint=5e4)
    inner = np.hypot(stars.x - 160, stars.y - 150)
    variable = int(np.argmin(inner))
    brighter = Stars(stars.x, stars.y, stars.flux * np.where(np.arange(36) == variable, 1.5, 1.0))
    truth = draw(brighter, SHAPE, 4.8)
    target, reference, variance, reference_variance = noisy_pair(rng, 0, 4.2, stars, target_truth=truth)
    found = fit(target, reference, variance + reference_variance, stars)
    assert not found.used[variable]
    assert found.used.sum() == found.n_stamps > 10
    assert found.kernel.flux_ratio == pytest.approx(1.0, rel=0.01)


def test_stamps_with_a_bad_reference_pixel_are_not_used():
    rng = np.random.default_rng(7)
    stars = scattered_stars(SHAPE, 36, rng)
    target, reference, variance, _ = noisy_pair(rng, 4.8, 4.2, stars)
    chosen = int(np.argmin(np.hypot(stars.x - 160, stars.y - 150)))
    bad = NOTHING_BAD.copy()
    bad[round(stars.y[chosen]) + 20, round(stars.x[chosen])] = True
    assert not fit(target, reference, variance, stars, reference_bad=bad).used[chosen]
    assert fit(target, reference, variance, stars, target_bad=bad).used[chosen]


def test_two_stamps_are_too_few():
    stars = Stars(np.array([100.0, 200.0]), np.array([100.0, 200.0]), np.array([1e5, 1e5]))
    image = draw(stars, SHAPE, 4.5)
    assert fit(image, image, np.ones(SHAPE), stars) is None


def test_few_stamps_give_a_constant_kernel():
    rng = np.random.default_rng(8)
    stars = scattered_stars(SHAPE, 9, rng, faint=1e5)
    target, reference, variance, _ = noisy_pair(rng, 4.8, 4.2, stars)
    few = Stars(stars.x[:5], stars.y[:5], stars.flux[:5])
    assert fit(target, reference, variance, few, order=2).kernel.order == 0


def test_a_kernel_survives_its_table():
    rng = np.random.default_rng(9)
    basis = GaussPolynomialBasis((0.8, 2.0), (1, 1), 5)
    kernel = SpatialKernel(basis, rng.normal(size=(3, basis.size)), rng.normal(size=3), (40, 50))
    again = SpatialKernel.from_table(kernel.to_table())
    image = rng.normal(size=(40, 50))
    assert again.image_at(10, 30) == pytest.approx(kernel.image_at(10, 30))
    assert again.apply(image) == pytest.approx(kernel.apply(image))


def test_decorrelation_makes_the_noise_white_and_keeps_flux():
    rng = np.random.default_rng(10)
    y, x = np.mgrid[-6:7, -6:7]
    kernel = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    kernel *= 0.9 / kernel.sum()
    science, reference = rng.normal(0, 2.0, (256, 256)), rng.normal(0, 3.0, (256, 256))
    difference = science - convolve(reference, kernel)
    whitening = decorrelation_kernel(kernel, 4.0, 9.0)
    white = convolve(difference, whitening)[15:-15, 15:-15]
    neighbours = (white[:, 1:] * white[:, :-1]).mean() / white.var()
    assert whitening.sum() == pytest.approx(1.0)
    assert abs(neighbours) < 0.02 < (difference[:, 1:] * difference[:, :-1]).mean() / difference.var()
    assert white.var() == pytest.approx(4.0 + 0.9**2 * 9.0, rel=0.03)
