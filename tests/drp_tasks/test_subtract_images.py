"""Subtraction: noise and nothing else is left, masks and variances are carried, failures are annotated."""

import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.alard_lupton import SpatialKernel
from drp_tasks.build_template import encode_counts
from drp_tasks.images import plane, unusable
from drp_tasks.psf import PolynomialPsf
from drp_tasks.subtract_images import (
    Pixels,
    SubtractImagesTask,
    TooFewStampsError,
    patchwork,
    stamp_sources,
    subtract,
)
from tests.drp_tasks.synthetic_fields import (
    Stars,
    detector_wcs,
    draw,
    nanojansky_image,
    observe,
    psf_model,
    scattered_stars,
)

SHAPE = (300, 320)


def pair(seed, fwhm_science=4.8, fwhm_template=4.0, extra=None):
    """Science and template pixels of one field; ``extra`` shines in the science image alone."""
    rng = np.random.default_rng(seed)
    stars = scattered_stars(SHAPE, 42, rng, faint=4e3, bright=6e5)
    truth = draw(stars, SHAPE, fwhm_science)
    if extra is not None:
        truth = truth + draw(extra, SHAPE, fwhm_science)
    science, template = observe(truth, 30.0, rng), observe(draw(stars, SHAPE, fwhm_template), 20.0, rng)
    good = np.zeros(SHAPE, bool)
    return stars, Pixels(*science, good), Pixels(*template, good)


def table(stars):
    return Table(
        {
            "x": stars.x,
            "y": stars.y,
            "psfFlux": stars.flux,
            "psfFluxErr": np.full(len(stars.x), 200.0),
            "flag": np.zeros(len(stars.x), bool),
        }
    )


def run_task(stars, science, template, config=None):
    wcs = detector_wcs(SHAPE)
    return SubtractImagesTask(config=config or SubtractImagesTask.ConfigClass()).run(
        visitImage=nanojansky_image(science.array, science.variance, wcs, {"CR": science.bad}),
        visitPsf=psf_model(SHAPE, 4.8).to_table(),
        sources=table(stars),
        template=nanojansky_image(template.array, template.variance, wcs, {"NO_DATA": template.bad}),
        visitCounts=encode_counts(np.full(template.array.shape, 3, np.uint8)),
    )


@pytest.mark.parametrize("fwhm_template", [4.0, 5.0])
def test_the_residuals_are_as_large_as_their_errors(fwhm_template):
    stars, science, template = pair(1, fwhm_template=fwhm_template)
    difference = subtract(science, template, stars.x, stars.y)
    pull = difference.pixels.array / np.sqrt(difference.pixels.variance)
    assert difference.pull == pytest.approx(1.0, abs=0.03)
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.04)
    assert np.abs(pull).max() < 6


def test_a_new_star_keeps_its_flux_and_has_the_differences_psf():
    new = Stars(np.array([150.0, 90.0]), np.array([140.0, 210.0]), np.array([5e4, 8e4]))
    stars, science, template = pair(2, extra=new)
    difference = subtract(science, template, stars.x, stars.y)
    psf = difference.psf(psf_model(SHAPE, 4.8))
    for x, y, flux in zip(new.x.astype(int), new.y.astype(int), new.flux, strict=True):
        stamp = difference.pixels.array[y - 12 : y + 13, x - 12 : x + 13]
        model = psf.image_at(x, y)
        assert (stamp * model).sum() / (model**2).sum() == pytest.approx(flux, rel=0.02)


def test_bad_pixels_of_either_image_are_bad_in_the_difference_and_the_templates_grow():
    stars, science, template = pair(3)
    cosmic_ray, hole = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    cosmic_ray[20, 30], hole[200:210, 100:110] = True, True
    result = run_task(
        stars, Pixels(science.array, science.variance, cosmic_ray), Pixels(template.array, template.variance, hole)
    )
    bad = unusable(result.difference)
    assert plane(result.difference, "CR").sum() == bad[:100].sum() == 1
    assert plane(result.difference, "NO_DATA")[198:212, 104].all()
    assert not bad[195:215, 90:97].any()


def test_the_task_says_how_well_it_did_and_stores_kernel_and_psf():
    stars, science, template = pair(4)
    task = SubtractImagesTask(config=SubtractImagesTask.ConfigClass())
    wcs = detector_wcs(SHAPE)
    result = task.run(
        visitImage=nanojansky_image(science.array, science.variance, wcs),
        visitPsf=psf_model(SHAPE, 4.8).to_table(),
        sources=table(stars),
        template=nanojansky_image(template.array, template.variance, wcs),
        visitCounts=encode_counts(np.full(SHAPE, 3, np.uint8)),
    )
    assert task.metadata["flux_ratio"] == pytest.approx(1.0, rel=0.01)
    assert task.metadata["pull"] == pytest.approx(1.0, abs=0.03)
    assert SpatialKernel.from_table(result.kernel).flux_ratio == pytest.approx(task.metadata["flux_ratio"])
    assert PolynomialPsf.from_table(result.differencePsf).image_at(100, 100).sum() == pytest.approx(1.0)


def test_a_field_without_bright_sources_is_an_algorithm_error():
    stars, science, template = pair(5)
    nobody = Stars(stars.x[:0], stars.y[:0], stars.flux[:0])
    with pytest.raises(TooFewStampsError) as caught:
        run_task(nobody, science, template)
    assert isinstance(caught.value, pb.AlgorithmError)
    assert caught.value.metadata == {"n_candidates": 0}


def test_a_template_that_covers_nothing_is_an_algorithm_error():
    stars, science, template = pair(5)
    with pytest.raises(TooFewStampsError):
        run_task(stars, science, Pixels(template.array, template.variance, np.ones(SHAPE, bool)))


def test_stamps_are_the_brightest_unflagged_sources():
    sources = Table(
        {
            "psfFlux": [10.0, 500.0, 400.0, 900.0, 300.0],
            "psfFluxErr": [1.0] * 5,
            "flag": [False, False, False, True, False],
        }
    )
    assert list(stamp_sources(sources, 30.0, 2)) == [1, 2]


def test_a_star_at_the_edge_finds_its_light_in_a_wider_template():
    margin = 16
    stars, science, _ = pair(6, extra=Stars(np.array([4.0]), np.array([150.0]), np.array([3e5])))
    both = Stars(*(np.append(v, w) for v, w in zip((stars.x, stars.y, stars.flux), (4.0, 150.0, 3e5), strict=True)))
    wide = (SHAPE[0] + 2 * margin, SHAPE[1] + 2 * margin)
    truth = draw(Stars(both.x + margin, both.y + margin, both.flux), wide, 4.0)
    template = Pixels(*observe(truth, 20.0, np.random.default_rng(7)), np.zeros(wide, bool))
    difference = subtract(science, template, stars.x, stars.y)
    pull = (difference.pixels.array / np.sqrt(difference.pixels.variance))[140:160, :14]
    assert difference.pixels.array.shape == SHAPE
    assert np.abs(pull).max() < 5


def test_where_the_template_has_other_visits_its_flux_is_less_certain():
    count = np.full((60, 60), 4)
    count[:, :20], count[:10] = 3, 0
    difference = patchwork(count, (40, 40))
    assert difference[30, 5] == pytest.approx(0.25)
    assert difference[30, 30] == 0.0
    assert not patchwork(np.zeros((60, 60), int), (40, 40)).any()
    stars, science, template = pair(8)
    error = np.full(SHAPE, 0.01)
    error[:, :100] = 0.1
    plain, careful = (subtract(science, template, stars.x, stars.y, model_error=e).pixels for e in (0.01, error))
    assert careful.variance[:, 100:] == pytest.approx(plain.variance[:, 100:], rel=1e-5)
    assert careful.variance[:, :100].max() > 10 * plain.variance[:, :100].max()
