"""The global fit finds the zero points that were put in, in spite of outliers, gaps and missing references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.pipe.base import NoWorkFound

from drp_tasks.global_photometry import (
    FitGlobalPhotometryConfig,
    FitGlobalPhotometryTask,
    PriorWidths,
    VisitDetectors,
    fit_zero_points,
    select_measurements,
)
from drp_tasks.isolated_star import IsolationCriteria, associate_isolated_stars, attach_references
from tests.drp_tasks.synthetic_stars import ZERO_POINTS, Errors, make_sky, observe

SKY = make_sky(150)


def errors_of_zero_points(seed, visit=0.05, detector=0.004, visit_detector=0.003):
    rng = np.random.default_rng(seed)
    visits, detectors = rng.normal(0, visit, 20), rng.normal(0, detector, 9)
    visit_detectors = rng.normal(0, visit_detector, (20, 9))
    return lambda v, d: visits[v] + detectors[d] + visit_detectors[v, d]


def fit(catalogues, band="r", priors=None, references=True):
    members, stars = associate_isolated_stars(catalogues.sources, IsolationCriteria())
    if references:
        stars = attach_references(stars, catalogues.references, 0.5)
    mine = catalogues.summary[catalogues.summary["band"] == band]
    visit_detectors = VisitDetectors(*(np.asarray(mine[name]) for name in ("visit", "detector", "zeroPoint")))
    measurements = select_measurements(
        visit_detectors, members, stars, band, min_signal_to_noise=40, intrinsic_scatter=0.002, reference_floor=0.0
    )
    return visit_detectors, measurements, fit_zero_points(visit_detectors, measurements, priors)


def test_noiseless_stars_give_back_every_zero_point():
    wrong = errors_of_zero_points(1)
    catalogues = observe(SKY, "rrrr", Errors(zero_point=wrong))
    visit_detectors, _, solution = fit(catalogues)
    assert np.abs(solution.zero_point - ZERO_POINTS["r"]).max() < 1e-3
    assert np.std(visit_detectors.zero_point) > 0.02
    assert solution.converged
    assert solution.scatter < 1e-3


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_noisy_stars_give_zero_points_within_their_errors(seed):
    catalogues = observe(
        SKY, "rrrrrr", Errors(errors_of_zero_points(seed), flux_relative=0.01, reference_mag=0.01), seed=seed
    )
    _, _, solution = fit(catalogues)
    pull = (solution.zero_point - ZERO_POINTS["r"]) / np.hypot(solution.error, 0.01 / np.sqrt(len(SKY.ra)))
    assert np.std(solution.zero_point) < 0.004
    assert np.sqrt(np.mean(pull**2)) < 2


def test_outliers_do_not_move_the_zero_points():
    catalogues = observe(SKY, "rrrr", Errors(errors_of_zero_points(3), flux_relative=0.003))
    rng = np.random.default_rng(5)
    variable = rng.uniform(size=len(catalogues.sources)) < 0.05
    catalogues.sources["psfFlux"][variable] *= rng.uniform(1.2, 3, variable.sum())
    _, measurements, solution = fit(catalogues)
    assert np.abs(solution.zero_point - ZERO_POINTS["r"]).max() < 0.005
    assert solution.n_stars.sum() < len(measurements.star)


def test_without_references_the_zero_points_are_consistent_among_each_other():
    wrong = errors_of_zero_points(4)
    catalogues = observe(SKY, "rrrr", Errors(wrong))
    _, measurements, solution = fit(catalogues, references=False)
    assert np.isnan(measurements.reference).all()
    assert np.std(solution.zero_point) < 1e-3
    assert np.abs(solution.zero_point - ZERO_POINTS["r"]).max() < 0.1


def test_a_detector_without_stars_gets_its_visits_zero_point_and_a_visit_without_keeps_its_own():
    catalogues = observe(SKY, "rrrr", Errors(lambda visit, detector: 0.05 * visit))
    sources = catalogues.sources
    catalogues.sources.remove_rows(((sources["visit"] == 2) & (sources["detector"] == 1)) | (sources["visit"] == 4))
    visit_detectors, _, solution = fit(catalogues)
    bare = (visit_detectors.visit == 2) & (visit_detectors.detector == 1)
    assert solution.n_stars[bare] == 0
    assert solution.zero_point[bare] == pytest.approx(ZERO_POINTS["r"], abs=2e-3)
    assert solution.error[bare] > 3 * solution.error[~bare & (visit_detectors.visit != 4)].max()
    assert np.array_equal(solution.visit_has_stars, visit_detectors.visit != 4)


def test_priors_keep_detector_terms_near_zero_where_they_have_to():
    catalogues = observe(SKY, "rr", Errors(lambda visit, detector: 0.1 * (detector == 0)))
    _, _, solution = fit(catalogues, priors=PriorWidths(detector=1e-6, visit_detector=1e-6))
    per_visit = solution.zero_point.reshape(2, 4)
    assert np.ptp(per_visit, axis=1).max() < 1e-4


def test_stars_seen_once_without_reference_tell_nothing():
    catalogues = observe(SKY, "r", Errors())
    members, stars = associate_isolated_stars(catalogues.sources, IsolationCriteria(min_sources=1))
    visit_detectors = VisitDetectors(
        *(np.asarray(catalogues.summary[name]) for name in ("visit", "detector", "zeroPoint"))
    )
    cuts = {"min_signal_to_noise": 40, "intrinsic_scatter": 0.0, "reference_floor": 0.0}
    assert len(select_measurements(visit_detectors, members, stars, "r", **cuts).star) == 0
    stars = attach_references(stars, catalogues.references, 0.5)
    assert len(select_measurements(visit_detectors, members, stars, "r", **cuts).star) == len(members)


def tables(catalogues):
    members, stars = associate_isolated_stars(catalogues.sources, IsolationCriteria())
    return members, attach_references(stars, catalogues.references, 0.5), catalogues.summary


def test_task_solves_each_band_and_counts_a_source_of_two_tracts_once():
    catalogues = observe(SKY, "grgri", Errors(errors_of_zero_points(6)))
    members, stars, summary = tables(catalogues)
    task = FitGlobalPhotometryTask(config=FitGlobalPhotometryConfig())
    catalog = task.run([members, members], [stars, stars], [summary]).catalog
    once = task.run([members], [stars], [summary]).catalog
    assert catalog.colnames == ["visit", "detector", "band", "zeroPoint", "zeroPointErr", "nStars"]
    assert len(catalog) == len(summary)
    assert set(catalog["band"]) == set("gri")
    truth = np.array([ZERO_POINTS[band] for band in catalog["band"]])
    assert np.abs(catalog["zeroPoint"] - truth).max() < 2e-3
    assert np.array_equal(catalog["nStars"], once["nStars"])


def test_task_has_no_work_without_measurements():
    members, stars, summary = tables(observe(SKY, "rr"))
    task = FitGlobalPhotometryTask(config=FitGlobalPhotometryConfig(minSignalToNoise=1e9))
    with pytest.raises(NoWorkFound, match="no visit has a star"):
        task.run([members], [stars], [summary])
