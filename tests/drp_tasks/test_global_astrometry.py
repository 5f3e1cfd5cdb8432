"""The global refit undoes the distortion that was put in, and its WCSs say so to better than a milliarcsecond."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lsst.pipe.base import NoWorkFound

from drp_tasks.global_astrometry import FitAstrometryConfig, FitAstrometryTask
from drp_tasks.images import wcs_from_text
from drp_tasks.isolated_star import IsolationCriteria, associate_isolated_stars, attach_references
from drp_tasks.matching import separation, to_tangent_plane
from tests.drp_tasks.synthetic_stars import DEC0, RA0, SIDE_PX, Errors, make_sky, observe

SKY = make_sky(300)


def distortion(seed, amplitude_mas=20.0):
    """A smooth distortion of its own for each visit: quadratic, and a wave."""
    rng = np.random.default_rng(seed)
    terms = rng.normal(0, amplitude_mas, (20, 8))

    def shift(visit, xi, eta):
        a, (u, v) = terms[visit], (xi / 120, eta / 120)
        return a[0] + a[1] * u * v + a[2] * np.sin(3 * v), a[3] + a[4] * u**2 + a[5] * np.sin(3 * u)

    return shift


def fit(catalogues, references=None, **config):
    members, stars = associate_isolated_stars(catalogues.sources, IsolationCriteria())
    stars = attach_references(stars, catalogues.references if references is None else references, 0.5)
    task = FitAstrometryTask(config=FitAstrometryConfig(**config))
    visits = [catalogues.summary[catalogues.summary["visit"] == v] for v in np.unique(catalogues.summary["visit"])]
    return task, task.run(members, stars, visits).catalog


def positions(catalogues, catalog):
    """RA and Dec of all sources under the new WCSs."""
    sources = catalogues.sources
    ra, dec = np.array(sources["ra"]), np.array(sources["dec"])
    for row in catalog:
        mine = (sources["visit"] == row["visit"]) & (sources["detector"] == row["detector"])
        ra[mine], dec[mine] = wcs_from_text(row["wcs"]).all_pix2world(sources["x"][mine], sources["y"][mine], 0)
    return ra, dec


def errors_mas(catalogues, catalog):
    truth = catalogues.sources["truthId"]
    sky = catalogues.sky
    return 1000 * separation(*positions(catalogues, catalog), sky.ra[truth], sky.dec[truth])


def test_distortion_is_undone_to_a_milliarcsecond():
    catalogues = observe(SKY, "rrrr", Errors(distortion=distortion(1)))
    before = errors_mas(catalogues, [])
    task, catalog = fit(catalogues)
    after = errors_mas(catalogues, catalog)
    assert np.median(before) > 15
    assert np.median(after) < 0.3
    assert np.percentile(after, 98) < 1.5
    assert task.metadata["largest_wcs_error_mas"] < 0.1
    assert len(catalog) == 16


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
@example(507)  # centroid noise takes a star off an edge
def test_noisy_stars_leave_little_of_any_distortion(seed):
    noisy = observe(SKY, "grrig", Errors(distortion=distortion(seed), centroid_mas=5, reference_mas=2), seed=seed)
    _, catalog = fit(noisy)
    clean = observe(SKY, "grrig", Errors(distortion=distortion(seed)), seed=seed)
    left = errors_mas(clean, catalog)
    assert np.median(left) < 3


def test_each_detectors_own_shift_is_undone_too():
    def shifts(visit, xi, eta):
        return 8.0 * np.where(xi > 0, 1, -1), 6.0 * np.where(eta > 0, 1, -1)

    catalogues = observe(SKY, "rrr", Errors(distortion=shifts))
    _, with_terms = fit(catalogues, detectorPrior=10.0)
    _, without = fit(catalogues, detectorPrior=0.0)
    assert np.median(errors_mas(catalogues, with_terms)) < 0.7 * np.median(errors_mas(catalogues, without))


def test_a_few_mismatched_stars_do_no_harm():
    catalogues = observe(SKY, "rrrr", Errors(distortion=distortion(2)))
    wrong = np.random.default_rng(1).uniform(size=len(catalogues.sources)) < 0.03
    catalogues.sources["dec"][wrong] += 0.15 / 3600
    _, catalog = fit(catalogues)
    assert np.median(errors_mas(catalogues, catalog)) < 0.6


def test_frame_is_the_reference_catalogues():
    catalogues = observe(SKY, "rrrr", Errors(distortion=lambda visit, xi, eta: (xi * 0 + 40.0, eta * 0 - 25.0)))
    _, catalog = fit(catalogues, references=catalogues.references[:60])
    ra, dec = positions(catalogues, catalog)
    truth = catalogues.sources["truthId"]
    xi, eta = to_tangent_plane(ra, dec, RA0, DEC0)
    true_xi, true_eta = to_tangent_plane(catalogues.sky.ra[truth], catalogues.sky.dec[truth], RA0, DEC0)
    assert 1000 * np.median(xi - true_xi) == pytest.approx(0, abs=1)
    assert 1000 * np.median(eta - true_eta) == pytest.approx(0, abs=1)


def test_residuals_tell_the_centroids_errors():
    catalogues = observe(SKY, "rrrrrr", Errors(centroid_mas=10, reference_mas=2))
    _, catalog = fit(catalogues)
    assert np.median(catalog["residualMas"]) == pytest.approx(10, rel=0.25)
    assert catalog["nStars"].sum() > 0.95 * len(catalogues.sources)


def test_a_visit_with_too_few_stars_gets_no_solution_and_the_others_do():
    catalogues = observe(SKY, "rrr", Errors(distortion=distortion(3)))
    visit = np.asarray(catalogues.sources["visit"])
    catalogues.sources.remove_rows(np.flatnonzero(visit == 3)[3:])
    _, catalog = fit(catalogues)
    assert sorted(set(catalog["visit"])) == [1, 2]


def test_a_detector_without_stars_gets_what_its_visit_predicts():
    catalogues = observe(SKY, "rrr", Errors(distortion=lambda visit, xi, eta: (xi * 0 + 10.0 * visit, eta * 0)))
    sources = catalogues.sources
    catalogues.sources.remove_rows((sources["visit"] == 2) & (sources["detector"] == 3))
    _, catalog = fit(catalogues, maxOrder=1)
    (row,) = catalog[(catalog["visit"] == 2) & (catalog["detector"] == 3)]
    summary = catalogues.summary[(catalogues.summary["visit"] == 2) & (catalogues.summary["detector"] == 3)][0]
    assert row["nStars"] == 0
    middle = [SIDE_PX / 2, SIDE_PX / 2]
    moved = to_tangent_plane(
        *wcs_from_text(row["wcs"]).all_pix2world(*middle, 0), *wcs_from_text(summary["wcs"]).all_pix2world(*middle, 0)
    )
    assert 1000 * np.array(moved) == pytest.approx([-20, 0], abs=1.5)


def test_task_has_no_work_without_stars_enough():
    catalogues = observe(SKY, "rr")
    with pytest.raises(NoWorkFound, match="enough stars"):
        fit(catalogues, starsPerTerm=10**6)
