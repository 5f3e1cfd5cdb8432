"""Metrics against truth: on made-up pairs whose answer is known, and honest where they can't tell."""

import numpy as np
import pytest

from drp_tasks.truth_comparison import (
    BandSample,
    TransientSample,
    best_band,
    bogus_per_detector,
    completeness,
    depth,
    flux_pulls,
    limiting_magnitudes,
    magnitude_bias,
    purity,
    transient_completeness,
    transient_flux_pull,
    zero_point_offsets,
)

ERROR = 10.0
FIVE_SIGMA = 31.4 - 2.5 * np.log10(5 * ERROR)


def band_sample(magnitude, *, offset_mag=0.0, found=True, is_star=True, isolated=True, patch=0, error=ERROR, noise=0.0):
    """Sources measured ``offset_mag`` too faint, plus ``noise`` errors."""
    magnitude = np.asarray(magnitude, float)
    n = len(magnitude)
    found = np.resize(found, n)
    flux = 10 ** (-0.4 * (magnitude + offset_mag - 31.4)) + np.resize(noise, n) * error
    return BandSample(
        magnitude,
        np.resize(is_star, n),
        np.resize(isolated, n),
        np.resize(patch, n),
        np.full(n, error),
        found,
        np.where(found, flux, np.nan),
        np.where(found, error, np.nan),
    )


def at_signal_to_noise(ratio, n):
    return np.full(n, FIVE_SIGMA - 2.5 * np.log10(ratio / 5))


def by_name(metrics):
    return {metric.metric: metric for metric in metrics}


def test_pa6_is_the_median_magnitude_offset_of_bright_stars():
    stars = band_sample(np.linspace(18, 21, 30), offset_mag=0.007)
    galaxies = band_sample(np.full(100, 19.0), offset_mag=0.5, is_star=False)
    faint = band_sample(np.full(100, 24.0), offset_mag=0.5)
    both = BandSample(
        *(np.concatenate(columns) for columns in zip(*map(columns_of, (stars, galaxies, faint)), strict=True))
    )
    found = by_name(magnitude_bias(both, "r"))
    assert (found["PA6"].value, found["PA6"].n, found["PA6"].band) == (pytest.approx(7.0), 30, "r")


def columns_of(sample):
    return list(vars(sample).values())


def test_pa3_is_the_rms_over_patches_and_needs_patches():
    patch = np.arange(96) % 8
    sample = band_sample(np.full(96, 19.0), offset_mag=np.where(patch < 4, 0.01, 0.03), patch=patch)
    assert by_name(magnitude_bias(sample, "g"))["PA3"].value == pytest.approx(10.0)
    few = by_name(magnitude_bias(band_sample(np.full(96, 19.0), patch=np.arange(96) % 4), "g"))["PA3"]
    assert not few.measurable
    assert "4 patches" in few.detail


def test_too_few_stars_are_not_measured():
    assert not any(metric.measurable for metric in magnitude_bias(band_sample([19.0] * 9), "r"))


def test_completeness_counts_the_stars_of_signal_to_noise_ten():
    near = at_signal_to_noise(10, 40)
    sample = band_sample(np.append(near, at_signal_to_noise(30, 40)), found=[True] * 38 + [False] * 42)
    result = by_name(completeness(sample, "r"))["completenessSn10"]
    assert (result.value, result.n) == (pytest.approx(95.0), 40)


def test_galaxies_do_not_count_as_lost_stars():
    sample = band_sample(at_signal_to_noise(10, 40), found=np.arange(40) < 20, is_star=np.arange(40) < 20)
    assert by_name(completeness(sample, "r"))["completenessSn10"].value == 100.0


def test_what_isolated_stars_lack_is_told_apart():
    sample = band_sample(at_signal_to_noise(10, 40), found=np.arange(40) < 30, isolated=np.arange(40) < 32)
    found = by_name(completeness(sample, ""))
    assert found["completenessSn10"].value == 75.0
    assert found["completenessSn10_isolated"].value == pytest.approx(100 * 30 / 32)


def test_limiting_magnitudes_come_back_from_a_logistic_loss():
    rng = np.random.default_rng(1)
    magnitude = rng.uniform(20, 26, 4000)
    share = 1 / (1 + np.exp((magnitude - 24.2) / 0.2))
    limits = by_name(limiting_magnitudes(band_sample(magnitude, found=rng.uniform(size=4000) < share), "r"))
    assert limits["m50"].value == pytest.approx(24.2, abs=0.05)
    assert limits["m90"].value == pytest.approx(24.2 - 0.2 * np.log(9), abs=0.08)


def test_a_survey_deeper_than_its_truth_has_no_limits():
    limits = limiting_magnitudes(band_sample(np.linspace(18, 23, 200)), "r")
    assert not any(limit.measurable for limit in limits)


def test_a_share_that_never_reaches_ninety_percent_has_no_m90():
    rng = np.random.default_rng(2)
    magnitude = rng.uniform(20, 26, 3000)
    found = (magnitude < 24) & (rng.uniform(size=3000) < 0.8)
    limits = by_name(limiting_magnitudes(band_sample(magnitude, found=found), "r"))
    assert limits["m50"].value == pytest.approx(24.0, abs=0.1)
    assert not limits["m90"].measurable


def test_depth_is_the_magnitude_of_five_median_errors():
    assert depth(band_sample([20.0, 21.0, 22.0]), "i").value == pytest.approx(FIVE_SIGMA)
    assert not depth(band_sample([]), "i").measurable


def test_pulls_are_the_scatter_in_units_of_the_error():
    noise = np.random.default_rng(3).normal(0.5, 1.2, 4000)
    pulls = by_name(flux_pulls(band_sample(np.full(4000, 22.5), noise=noise), "r"))
    assert pulls["fluxPullSigma_22_23"].value == pytest.approx(1.2, rel=0.05)
    assert pulls["fluxPullMedian_22_23"].value == pytest.approx(0.5, abs=0.06)
    assert not pulls["fluxPullSigma_18_20"].measurable


def test_purity_is_the_share_of_significant_objects_that_are_true():
    result = purity(np.array([9.0] * 20 + [3.0] * 5), np.array([True] * 19 + [False] * 6))
    assert (result.value, result.n) == (pytest.approx(95.0), 20)


def test_zero_points_have_a_bias_and_a_scatter():
    offset = 0.01 + 0.004 * np.random.default_rng(4).normal(size=2000)
    found = by_name(zero_point_offsets(offset, "g"))
    assert found["zeroPointBias"].value == pytest.approx(10.0, abs=0.4)
    assert found["zeroPointTruthScatter"].value == pytest.approx(4.0, abs=0.3)
    assert not any(metric.measurable for metric in zero_point_offsets(offset[:5], "g"))


def test_the_best_band_is_the_one_where_a_source_is_most_significant():
    red = band_sample(at_signal_to_noise(10, 2), found=[True, True], error=ERROR)
    blue = band_sample(at_signal_to_noise(10, 2), found=[False, False], error=ERROR)
    blue.expected_error[:] = [1.0, np.nan]
    assert list(best_band([red, blue]).found) == [False, True]


def transients(snr, found):
    flux = np.asarray(snr, float) * ERROR
    return TransientSample(flux, np.full(len(flux), ERROR), np.where(found, flux, np.nan), np.full(len(flux), ERROR))


def test_transients_count_by_the_signal_to_noise_of_their_flux():
    sample = transients([20.0] * 20 + [7.0] * 20 + [5.0] * 20, [True] * 19 + [False] + [True] * 15 + [False] * 25)
    found = by_name(transient_completeness(sample))
    assert found["diaCompleteness"].value == pytest.approx(100 * 34 / 40)
    assert found["diaCompleteness_12"].value == pytest.approx(95.0)
    assert found["diaCompleteness_6_8"].value == pytest.approx(75.0)
    assert found["diaCompleteness_4_6"].value == 0.0
    assert not found["diaCompleteness_8_12"].measurable


def test_a_negative_dia_source_is_not_the_transient():
    sample = transients([20.0] * 10, [True] * 10)
    sample.measured[:5] *= -1
    assert by_name(transient_completeness(sample))["diaCompleteness"].value == 50.0


def test_transient_fluxes_are_compared_with_the_truth():
    sample = transients([20.0] * 500, [True] * 500)
    sample.measured[:] += ERROR * np.random.default_rng(5).normal(0, 1.1, 500)
    assert transient_flux_pull(sample).value == pytest.approx(1.1, rel=0.1)
    assert not transient_flux_pull(transients([20.0] * 5, [True] * 5)).measurable


def test_joining_no_difference_gives_no_transients():
    assert len(TransientSample.join([]).flux) == 0
    one = transients([20.0] * 3, [True] * 3)
    assert len(TransientSample.join([one, one]).found) == 6


def test_bogus_are_counted_by_difference_image():
    assert bogus_per_detector(6, 4).value == 1.5
    assert not bogus_per_detector(0, 0).measurable
