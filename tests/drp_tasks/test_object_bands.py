"""Bands side by side: one map of all, with a threshold that noise passes as rarely as promised."""

import numpy as np
import pytest

from drp_tasks.input_psfs import InputPsf, inputs_to_table
from drp_tasks.object_bands import merge_maps, merged_threshold, pair_bands, significance_map
from tests.drp_tasks.synthetic_coadds import SIGMA, Scene, flux_at


@pytest.mark.parametrize("n_bands", [1, 3, 6])
def test_noise_exceeds_the_merged_threshold_as_rarely_as_a_gaussian_does(n_bands):
    rng = np.random.default_rng(4)
    merged = merge_maps(list(rng.normal(size=(n_bands, 1000, 400)).astype(np.float32)))
    n_sigma = 2.5
    expected = 0.00621 * merged.size
    assert (merged > merged_threshold(n_bands, n_sigma)).sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_one_band_needs_its_own_threshold():
    assert merged_threshold(1, 5.0) == pytest.approx(5.0, abs=1e-3)


def test_a_lonely_star_has_its_signal_to_noise_on_the_map():
    (band, _) = Scene([(80.0, 80.0, flux_at(200), 0.0)]).bands(0)
    assert band.fwhm_px == pytest.approx(2.3548 * SIGMA, rel=0.01)
    assert significance_map(band, 1.0)[80, 80] == pytest.approx(200, rel=0.02)
    assert significance_map(band, 0.5)[80, 80] == pytest.approx(0.8 * 200, rel=0.03)


def test_light_that_is_known_is_taken_off():
    scene = Scene([(80.0, 80.0, flux_at(200), 0.0)])
    (band, _) = scene.bands(0)
    empty = significance_map(band, 0.5, without=band.coadd.image.array)
    assert np.abs(empty).max() == 0


def test_a_coadd_without_psf_is_left_out():
    (g, r) = Scene([]).bands(0)
    everywhere = np.ones((50, 50), bool)
    psf = InputPsf(1, 1.0, r.psf, everywhere, (0, 0))
    bands = pair_bands({"g": g.coadd, "r": r.coadd}, {"r": inputs_to_table([psf])})
    assert [band.name for band in bands] == ["r"]
