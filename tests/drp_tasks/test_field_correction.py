"""Corrections in the tangent plane follow what stars show, and no more than their number allows."""

import numpy as np
import pytest

from drp_tasks.field_correction import FieldModel, Footprint, StarPositions, fit_corrections

GRID = np.stack(np.meshgrid(np.linspace(-100, 100, 9), np.linspace(-100, 100, 9)), axis=-1).reshape(-1, 2)
FOOTPRINTS = [Footprint(visit, 0, GRID[:, 0], GRID[:, 1], GRID[:, 0], GRID[:, 1]) for visit in (1, 2, 3)]


def measure(offset_of_visit, n_stars=200, referenced=True):
    """Each star once in each visit, displaced by what ``offset_of_visit`` says [arcsec] at its true position."""
    truth = np.random.default_rng(1).uniform(-95, 95, (n_stars, 2))
    footprint = np.repeat([0, 1, 2], n_stars)
    position = np.concatenate([truth + offset_of_visit(k, truth) for k in range(3)])
    stars = StarPositions(
        star=np.tile(np.arange(n_stars), 3),
        footprint=footprint,
        position=position,
        sigma=np.full(3 * n_stars, 0.005),
        reference=truth if referenced else np.full_like(truth, np.nan),
        reference_sigma=np.full(n_stars, 0.002),
    )
    return truth, stars


def bend(visit, position):
    """A quadratic of 30 mas with another sign in each visit."""
    return 0.03 * (visit - 1) * (position / 100) ** 2


@pytest.mark.parametrize(("n_stars", "order"), [(1000, 5), (84, 5), (83, 4), (12, 1), (4, 0), (3, -1)])
def test_order_falls_with_the_number_of_stars(n_stars, order):
    assert FieldModel(max_order=5, stars_per_term=4).order(n_stars) == order


def test_corrected_positions_and_grids_are_the_true_ones():
    truth, stars = measure(bend)
    correction = fit_corrections(FOOTPRINTS, stars)
    assert correction.converged
    assert np.abs(correction.position - np.tile(truth, (3, 1))).max() < 1e-3
    assert correction.grid[0] == pytest.approx(GRID - bend(0, GRID), abs=3e-3)
    assert correction.n_stars.tolist() == [200, 200, 200]


def test_without_references_the_visits_agree_with_each_other():
    _, stars = measure(bend, referenced=False)
    correction = fit_corrections(FOOTPRINTS, stars)
    by_visit = correction.position.reshape(3, -1, 2)
    assert np.abs(by_visit - by_visit.mean(axis=0)).max() < 1e-3


def test_a_stiff_model_leaves_what_it_cannot_follow_in_its_residuals():
    _, stars = measure(bend)
    correction = fit_corrections(FOOTPRINTS, stars, FieldModel(max_order=1, detector_prior_mas=0))
    assert correction.residual_mas[0] > 3
    assert fit_corrections(FOOTPRINTS, stars).residual_mas[0] < 0.2


def test_outliers_have_no_say():
    truth, stars = measure(bend)
    stars.position[::25] += 0.2
    correction = fit_corrections(FOOTPRINTS, stars)
    good = np.ones(len(stars.star), bool)
    good[::25] = False
    assert np.abs(correction.position - np.tile(truth, (3, 1)))[good].max() < 1e-3
    assert correction.n_stars.sum() == good.sum()


def test_a_detector_of_a_visit_without_stars_has_no_solution():
    _, stars = measure(bend)
    unseen = Footprint(9, 0, GRID[:, 0], GRID[:, 1], GRID[:, 0], GRID[:, 1])
    correction = fit_corrections([*FOOTPRINTS, unseen], stars)
    assert correction.grid[3] is None
    assert np.isnan(correction.residual_mas[3])
    assert correction.n_stars[3] == 0
