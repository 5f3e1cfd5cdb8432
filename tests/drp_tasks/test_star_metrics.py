"""The metrics give back the scatter that was put in, and say so where they cannot be measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_tasks.matching import from_tangent_plane
from drp_tasks.star_metrics import (
    ANNULI,
    StarObservations,
    absolute_astrometry,
    band_registration,
    photometric_repeatability,
    position_repeatability,
    relative_astrometry,
    zero_point_scatter,
)

RA0, DEC0 = 359.98, -60.0


def observe(
    n_stars=100, n_visits=10, sigma_mmag=0.0, sigma_mas=0.0, *, offset_mas=(0.0, 0.0), seed=1, signal_to_noise=500.0
):
    """Stars of one sky, scattered over 8 arcmin across RA = 0, in some visits with normal errors."""
    sky, rng = np.random.default_rng(7), np.random.default_rng(seed)
    xi, eta = sky.uniform(-240, 240, (2, n_stars))
    magnitude = sky.uniform(17.5, 21, n_stars)
    star = np.tile(np.arange(n_stars), n_visits)
    n = len(star)
    ra, dec = from_tangent_plane(
        xi[star] + (offset_mas[0] + rng.normal(0, 1, n) * sigma_mas) / 1000,
        eta[star] + (offset_mas[1] + rng.normal(0, 1, n) * sigma_mas) / 1000,
        RA0,
        DEC0,
    )
    return StarObservations(
        star=star,
        visit=np.repeat(np.arange(n_visits), n_stars),
        magnitude=magnitude[star] + rng.normal(0, 1, n) * sigma_mmag / 1000,
        signal_to_noise=np.full(n, signal_to_noise),
        ra=ra,
        dec=dec,
    )


def values(metrics):
    assert all(metric.measurable for metric in metrics)
    return {metric.metric: metric.value for metric in metrics}


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 30), st.integers(0, 100))
def test_pa1_is_the_scatter_of_the_magnitudes(sigma_mmag, seed):
    found = values(photometric_repeatability(observe(200, 20, sigma_mmag, seed=seed), "r"))
    assert found["PA1"] == pytest.approx(sigma_mmag, rel=0.1)


def test_pf1_counts_measurements_and_pf1_stars_counts_stars():
    seen = observe(n_stars=100, n_visits=10)
    seen.magnitude[(seen.star < 20) & (seen.visit == 0)] += 0.1
    found = values(photometric_repeatability(seen, "g"))
    assert found["PF1"] == pytest.approx(100 * 20 / 1000)
    assert found["PF1_stars"] == pytest.approx(20)
    assert found["PA1"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("few", [observe(signal_to_noise=150.0), observe(n_visits=2), observe(n_stars=4)])
def test_repeatability_needs_bright_stars_seen_thrice(few):
    assert [metric.measurable for metric in photometric_repeatability(few, "r")] == [False] * 3


def test_faint_stars_do_not_enter_pa1():
    seen = observe(sigma_mmag=3)
    seen.signal_to_noise[seen.star >= 50] = 60
    seen.magnitude[seen.star >= 50] += np.random.default_rng(3).normal(0, 0.5, 500)
    (pa1, *_) = photometric_repeatability(seen, "r")
    assert pa1.n == 50
    assert pa1.value == pytest.approx(3, rel=0.15)


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 30), st.integers(0, 100))
def test_am1_is_the_scatter_of_separations_which_both_stars_make(sigma_mas, seed):
    found = values(relative_astrometry(observe(200, 20, sigma_mas=sigma_mas, seed=seed), "r", ANNULI[0]))
    assert found["AM1"] == pytest.approx(sigma_mas * np.sqrt(2), rel=0.1)
    assert found["AD1"] == pytest.approx(1.645 * sigma_mas * np.sqrt(2), rel=0.15)


def test_af1_is_the_share_beyond_20_mas():
    found = values(relative_astrometry(observe(sigma_mas=20 / np.sqrt(2), n_visits=30), "r", ANNULI[0]))
    assert found["AF1"] == pytest.approx(31.7, abs=3)


def test_a_shift_of_whole_visits_does_not_change_relative_astrometry():
    seen = observe(sigma_mas=5)
    shifted = observe(sigma_mas=5, offset_mas=(300, -100))
    first, second = (values(relative_astrometry(one, "r", ANNULI[0])) for one in (seen, shifted))
    assert first["AM1"] == pytest.approx(second["AM1"], abs=0.05)


@pytest.mark.parametrize("annulus", ANNULI[1:])
def test_am2_and_am3_are_not_measurable_on_a_small_field(annulus):
    metrics = relative_astrometry(observe(), "r", annulus)
    assert [metric.metric[:2] for metric in metrics] == ["AM", "AF", "AD"]
    assert not any(metric.measurable for metric in metrics)
    assert "0 pairs of stars" in metrics[0].detail


def test_pairs_count_only_where_seen_together_thrice():
    seen = observe(n_visits=5)
    half = seen.where((seen.star % 2 == 0) == (seen.visit < 3))
    whole, torn = (relative_astrometry(one, "r", ANNULI[0])[0] for one in (seen, half))
    assert 0 < torn.n < 0.4 * whole.n


def test_self_repeatability_is_the_scatter_in_each_coordinate():
    found = values(position_repeatability(observe(sigma_mas=8, n_visits=20), "i"))
    assert found["repeatabilityRa"] == pytest.approx(8, rel=0.05)
    assert found["repeatabilityDec"] == pytest.approx(8, rel=0.05)
    assert not position_repeatability(observe(n_visits=2), "i")[0].measurable


def test_aa1_is_the_offset_from_the_references_whatever_the_outliers():
    truth = observe(n_visits=1)
    seen = observe(sigma_mas=5, offset_mas=(12.0, -30.0))
    reference_ra, reference_dec = truth.ra.copy(), truth.dec.copy()
    reference_ra[::2] = np.nan
    reference_dec[1] += 0.3 / 3600
    metrics = absolute_astrometry([seen], reference_ra, reference_dec)
    found = values(metrics)
    assert found["AA1_ra"] == pytest.approx(12, abs=1.5)
    assert found["AA1_dec"] == pytest.approx(-30, abs=1.5)
    assert found["AA1"] == pytest.approx(30, abs=1.5)
    assert metrics[0].n == 50


def test_aa1_is_not_measurable_without_references():
    nothing = np.full(100, np.nan)
    assert not any(metric.measurable for metric in absolute_astrometry([observe()], nothing, nothing))
    assert not any(metric.measurable for metric in absolute_astrometry([], nothing, nothing))


def test_ab1_is_the_distance_between_bands():
    seen = {"g": observe(offset_mas=(6.0, 8.0)), "r": observe(), "i": observe(n_stars=3)}
    g, i = band_registration(seen)
    assert (g.band, g.value) == ("g", pytest.approx(10, abs=0.01))
    assert (i.band, i.measurable) == ("i", False)
    (alone,) = band_registration({"g": observe()})
    assert not alone.measurable


def test_zero_point_scatter_is_within_visits():
    rng = np.random.default_rng(1)
    visit = np.repeat(np.arange(60), 9)
    zero_point = 32 + 0.3 * rng.normal(0, 1, 60)[visit] + rng.normal(0, 0.005, 540)
    metric = zero_point_scatter(visit, zero_point, "r")
    assert metric.value == pytest.approx(5, rel=0.15)
    assert not zero_point_scatter(np.arange(20), zero_point[:20], "r").measurable
