"""Residuals of the PSF models are found as they were put in."""

import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.matching import from_tangent_plane
from drp_tasks.psf_metrics import PsfResiduals, ellipticity_correlations, psf_model_residuals

RNG = np.random.default_rng(1)


def stars(n=400, n_visits=2, half_width_arcmin=5.0):
    xi, eta = RNG.uniform(-60, 60, (2, n)) * half_width_arcmin
    ra, dec = from_tangent_plane(xi, eta, 10.0, -30.0)
    return Table(
        {
            "visit": np.arange(n) % n_visits,
            "ra": ra,
            "dec": dec,
            "psfSize": np.full(n, 2.0),
            "starSize": np.full(n, 2.0),
            "psfE1": np.full(n, 0.05),
            "psfE2": np.full(n, -0.02),
            "starE1": np.full(n, 0.05),
            "starE2": np.full(n, -0.02),
        }
    )


def test_residuals_are_relative_sizes_and_differences_of_shape():
    table = stars()
    table["starSize"] = 2.0 * 1.01 + RNG.normal(0, 0.002, 400)
    table["starE1"] += RNG.normal(0, 0.008, 400)
    size, e1, e2 = psf_model_residuals(PsfResiduals.from_table(table), "r")
    assert size.value == pytest.approx(0.01, abs=5e-4)
    assert e1.value == pytest.approx(0.008, rel=0.15)
    assert e2.value == 0


def test_stars_without_moments_are_left_out():
    table = stars(30)
    table["starE1"][:15] = np.nan
    size, *_ = psf_model_residuals(PsfResiduals.from_table(table), "r")
    assert (size.measurable, size.n) == (False, 15)


def test_stars_with_a_neighbour_in_their_moments_are_left_out():
    table = stars()
    for name in ("starE1", "starE2"):
        table[name] += RNG.normal(0, 0.01, 400)
    table["starE1"][::40] += 0.5
    residuals = PsfResiduals.from_table(table)
    assert len(residuals.e1) == 390
    assert np.abs(residuals.e1).max() < 0.1


def test_correlated_residuals_are_seen_at_all_separations():
    table = stars()
    table["starE1"] += 0.01
    table["starE2"] -= 0.02
    te1, te2 = ellipticity_correlations(PsfResiduals.from_table(table), "r")
    expected = (0.01**2 + 0.02**2) / 2
    assert (te1.metric, te2.metric) == ("TE1", "TE2")
    assert te1.value == pytest.approx(expected, rel=1e-3)
    assert te2.value == pytest.approx(expected, rel=1e-3)


def test_independent_residuals_are_not_correlated():
    table = stars(1000)
    table["starE1"] += RNG.normal(0, 0.01, 1000)
    table["starE2"] += RNG.normal(0, 0.01, 1000)
    te1, te2 = ellipticity_correlations(PsfResiduals.from_table(table), "r")
    assert te1.value < 2e-5
    assert te2.value < 2e-6


def test_only_pairs_of_the_same_visit_count():
    table = stars(400, n_visits=2)
    table["starE1"] += np.where(table["visit"] == 0, 0.02, -0.02)
    te1, _ = ellipticity_correlations(PsfResiduals.from_table(table), "r")
    assert te1.value == pytest.approx(0.02**2 / 2, rel=1e-3)


def test_what_the_noise_of_few_pairs_hides_is_not_measurable():
    table = stars(200)
    table["starE1"] += RNG.normal(0, 0.02, 200)
    table["starE2"] += RNG.normal(0, 0.02, 200)
    te1, te2 = ellipticity_correlations(PsfResiduals.from_table(table), "r")
    assert te1.measurable
    assert not te2.measurable
    assert "hides what is demanded, 3e-07" in te2.detail


def test_a_small_field_has_no_pairs_for_te2():
    te1, te2 = ellipticity_correlations(PsfResiduals.from_table(stars(half_width_arcmin=1.5)), "r")
    assert te1.measurable
    assert not te2.measurable
    assert "5-20 arcmin" in te2.detail
