"""Coadds: artifacts out, stars in, noise as small as the inputs allow."""

import astropy.units as u
import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.wcs import WCS

from drp_tasks.assemble_coadd import (
    ArtifactCriteria,
    AssembleCoaddConfig,
    AssembleCoaddTask,
    WarpStack,
    best_seeing,
    find_artifacts,
    lower_median,
    noise_weights,
    weighted_mean,
)
from drp_tasks.images import masked_image, plane, unusable
from drp_tasks.make_warp import match_seeing

SIDE = 120
NOISE = 2.0
TARGET_SIGMA = 3.0
SEEING_SIGMA = (1.5, 1.7, 1.9, 2.2)
STARS = ((30.2, 40.7, 4000.0), (80.6, 75.1, 60000.0))
PATCH = (500, 300)


def wcs():
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval = [53.1, -28.1]
    result.wcs.crpix = [560.0, 360.0]
    result.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return result


def epoch(sigma, rng, *, noise=NOISE, streak=False, no_data=None, saturated=None):
    y, x = np.mgrid[:SIDE, :SIDE]
    array = rng.normal(0, noise, (SIDE, SIDE))
    for x0, y0, flux in STARS:
        array += flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2)
    if streak:
        array[99:102, 20:90] += 60.0
    nothing = np.zeros((SIDE, SIDE), bool)
    planes = {"NO_DATA": nothing if no_data is None else no_data, "SAT": nothing if saturated is None else saturated}
    return masked_image(
        array,
        np.full(array.shape, noise**2),
        planes,
        unit=u.nJy,
        wcs=wcs(),
        start_xy=PATCH,
        metadata={"band": "r", "psfFwhm": float(sigma * 2.355 * 0.2)},
    )


def matched(warp, sigma):
    array, variance, bad = match_seeing(
        warp.image.array, warp.variance.array, unusable(warp), float(np.sqrt(TARGET_SIGMA**2 - sigma**2))
    )
    return masked_image(array, variance, {"NO_DATA": bad}, unit=u.nJy, wcs=wcs(), start_xy=PATCH)


class Stored:
    def __init__(self, image):
        self.image = image

    def get(self, *, parameters=None):
        return self.image


def survey(**per_epoch):
    rng = np.random.default_rng(11)
    warps = {}
    for k, sigma in enumerate(SEEING_SIGMA):
        warps[100 + k] = (epoch(sigma, rng, **{name: value[k] for name, value in per_epoch.items()}), sigma)
    direct = {visit: Stored(warp) for visit, (warp, _) in warps.items()}
    blurred = {visit: Stored(matched(warp, sigma)) for visit, (warp, sigma) in warps.items()}
    return direct, blurred


def assemble(direct, blurred, **config):
    return AssembleCoaddTask(config=AssembleCoaddConfig(backgroundMesh=0, **config)).run(direct, blurred)


def test_a_streak_in_one_visit_is_clipped_and_star_cores_are_not():
    direct, blurred = survey(streak=[False, True, False, False])
    result = assemble(direct, blurred)
    n_image, coadd = result.nImage.array, result.coadd
    assert (n_image[100, 25:85] == len(SEEING_SIGMA) - 1).all()
    assert np.abs(coadd.image.array[99:102, 30:80].mean()) < 1.0
    assert plane(coadd, "CLIPPED")[100, 25:85].all()
    for x0, y0, flux in STARS:
        core = np.s_[int(y0) - 6 : int(y0) + 7, int(x0) - 6 : int(x0) + 7]
        assert (n_image[core] == len(SEEING_SIGMA)).all()
        y, x = np.mgrid[:SIDE, :SIDE]
        near = np.hypot(x - x0, y - y0) < 11
        assert coadd.image.array[near].sum() == pytest.approx(flux, rel=0.02)


def test_it_is_the_matching_that_saves_star_cores():
    direct, blurred = survey()
    criteria = ArtifactCriteria(max_epochs=1.0)
    assert find_artifacts(WarpStack.of([handle.image for handle in direct.values()]), criteria).any()
    assert not find_artifacts(WarpStack.of([handle.image for handle in blurred.values()]), criteria).any()


def test_a_streak_is_clipped_even_if_only_two_visits_see_the_pixel():
    direct, blurred = survey(streak=[False, True, False, False])
    kept = (100, 101)
    result = assemble({v: direct[v] for v in kept}, {v: blurred[v] for v in kept})
    assert (result.nImage.array[100, 25:85] == 1).all()
    assert (result.nImage.array[:80] == 2).all()


def test_what_most_visits_see_differently_is_no_artifact():
    direct, blurred = survey(streak=[True, True, False, False])
    assert not plane(assemble(direct, blurred).coadd, "CLIPPED").any()


def test_weights_make_the_noise_least_and_the_variance_says_so():
    rng = np.random.default_rng(2)
    levels = (1.0, 2.0, 4.0)
    stack = WarpStack(
        np.stack([rng.normal(0, s, (SIDE, SIDE)) for s in levels]).astype(np.float32),
        np.stack([np.full((SIDE, SIDE), s**2) for s in levels]).astype(np.float32),
        np.ones((3, SIDE, SIDE), bool),
    )
    mean = weighted_mean(stack, noise_weights(stack))
    best = 1 / sum(1 / s**2 for s in levels)
    assert mean.variance[0, 0] == pytest.approx(best, rel=1e-4)
    assert mean.array.var() == pytest.approx(best, rel=0.05)


def test_the_lower_median_ignores_what_is_unusable():
    stack = WarpStack(
        np.array([1.0, 9.0, 5.0, 100.0], np.float32).reshape(4, 1, 1),
        np.ones((4, 1, 1), np.float32),
        np.array([True, True, True, False]).reshape(4, 1, 1),
    )
    assert lower_median(stack)[0, 0] == 5.0


def test_a_template_takes_the_visits_of_best_seeing():
    direct, blurred = survey()
    result = assemble(direct, blurred, bestSeeingFraction=0.5, minInputs=1)
    assert list(result.inputSummary["visit"]) == [100, 101]
    assert result.inputSummary["weight"].sum() == pytest.approx(1.0)
    assert result.nImage.array.max() == 2
    assert list(best_seeing(np.array([0.9, 0.7, 0.8]), 0.1, 2)) == [False, True, True]


def test_pixels_that_too_few_visits_cover_have_no_data():
    edge = np.zeros((SIDE, SIDE), bool)
    edge[:, :20] = True
    full = np.zeros_like(edge)
    direct, blurred = survey(no_data=[edge, edge, edge, full])
    coadd = assemble(direct, blurred, minCoverage=2).coadd
    assert plane(coadd, "NO_DATA")[:, :20].all()
    assert not plane(coadd, "NO_DATA")[:, 20:].any()
    assert (coadd.image.array[:, :20] == 0).all()
    assert coadd.bbox.start.x == PATCH[0]


def test_a_core_that_is_saturated_in_all_visits_is_filled_and_flagged():
    core = np.zeros((SIDE, SIDE), bool)
    core[74:77, 80:83] = True
    coadd = assemble(*survey(saturated=[core] * 4)).coadd
    assert plane(coadd, "SAT")[75, 81]
    assert plane(coadd, "INTRP")[75, 81]
    assert coadd.image.array[75, 81] > 500


def test_a_visit_without_a_matched_warp_is_left_out():
    direct, blurred = survey()
    del blurred[102]
    assert list(assemble(direct, blurred).inputSummary["visit"]) == [100, 101, 103]
    with pytest.raises(pb.NoWorkFound):
        assemble(direct, {})


def test_a_background_that_the_visits_left_is_taken_off():
    direct, blurred = survey()
    for handle in (*direct.values(), *blurred.values()):
        handle.image.image.array[...] += 3.0
    coadd = AssembleCoaddTask(config=AssembleCoaddConfig(backgroundMesh=60)).run(direct, blurred).coadd
    assert np.median(coadd.image.array) == pytest.approx(0.0, abs=0.15)


def test_objects_are_not_taken_for_background():
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:SIDE, :SIDE]
    light = np.zeros((SIDE, SIDE))
    for x0, y0 in rng.uniform(5, SIDE - 5, (40, 2)):
        light += 4 * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 2.0**2)
    direct, blurred = survey()
    for handle in (*direct.values(), *blurred.values()):
        handle.image.image.array[...] += light

    def sky(mask_sigma):
        config = AssembleCoaddConfig(backgroundMesh=60, backgroundMaskSigma=mask_sigma)
        coadd = AssembleCoaddTask(config=config).run(direct, blurred).coadd
        return float(np.median(coadd.image.array[light < 0.02]))

    assert abs(sky(3.0)) < 0.5 * abs(sky(1e9))
