"""The coadd's PSF: from named stars, as they lie on the coadd."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from drp_tasks.coadd_psf import CoaddPsfError, FitCoaddPsfTask, on_stellar_locus
from drp_tasks.images import masked_image
from drp_tasks.input_psfs import MeanPsf
from drp_tasks.psf import PolynomialPsf

START = (700, 400)
SHAPE = (240, 260)
SIGMA = 1.9


@pytest.fixture
def wcs():
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval = [53.1, -28.1]
    result.wcs.crpix = [830.0, 520.0]
    result.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return result


def coadd_with(wcs, stars, *, galaxies=(), saturated=()):
    """Stars and galaxies are absolute (x, y)."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[START[1] : START[1] + SHAPE[0], START[0] : START[0] + SHAPE[1]]
    array = rng.normal(0, 1.0, SHAPE)
    for sigma, places in ((SIGMA, stars), (1.5 * SIGMA, galaxies)):
        for x0, y0 in places:
            array += 2e4 / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2)
    flagged = np.zeros(SHAPE, bool)
    for x0, y0 in saturated:
        flagged[round(y0) - START[1], round(x0) - START[0]] = True
    return masked_image(array, np.ones(SHAPE), {"SAT": flagged}, unit=u.nJy, wcs=wcs, start_xy=START)


def grid_of(n):
    rng = np.random.default_rng(9)
    places = [(725 + 35 * i, 425 + 35 * j) for i in range(7) for j in range(6)][:n]
    return [(x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)) for x, y in places]


class Stored:
    def __init__(self, image):
        self.image = image

    def get(self, *, parameters=None):
        return self.image


def fit(coadd, stars, *, visits=(3,)):
    warp = masked_image(
        coadd.image.array, coadd.variance.array, {}, unit=u.nJy, start_xy=START, metadata={"visit": visits[0]}
    )
    task = FitCoaddPsfTask()
    summary = Table({"visit": list(visits), "weight": [1.0 / len(visits)] * len(visits)})
    return task, task.run(coadd, stars, dict.fromkeys(visits, Stored(warp)), summary)


def catalogue(wcs, places, *, shift=0.0):
    ra, dec = wcs.all_pix2world([x + shift for x, _ in places], [y for _, y in places], 0)
    return [Table({"ra": ra, "dec": dec})]


def test_the_psf_has_the_stars_shape_and_is_centred_on_the_coadds_own_stars(wcs):
    places = grid_of(20)
    _, result = fit(coadd_with(wcs, places), catalogue(wcs, places, shift=0.15))
    psf = PolynomialPsf.from_table(result.psf)
    image = psf.image_at(830.0, 520.0)
    y, x = np.mgrid[-psf.half : psf.half + 1, -psf.half : psf.half + 1]
    truth = np.exp(-0.5 * (x**2 + y**2) / SIGMA**2)
    assert np.abs(image - truth / truth.sum()).max() < 0.01 * image.max()
    assert abs((x * image).sum()) < 0.02


def test_each_visits_psf_is_fitted_too(wcs):
    places = grid_of(20)
    _, result = fit(coadd_with(wcs, places), catalogue(wcs, places))
    mean = MeanPsf.from_input_table(result.inputPsfs)
    assert [one.visit for one in mean.inputs] == [3]
    whole = PolynomialPsf.from_table(result.psf).image_at(830.0, 520.0)
    assert np.abs(mean.image_at(830.0, 520.0) - whole).max() < 0.01 * whole.max()


def test_galaxies_and_saturated_stars_in_the_catalogue_are_not_used(wcs):
    places = grid_of(20)
    coadd = coadd_with(wcs, places[:12], galaxies=places[12:16], saturated=places[:2])
    task, _ = fit(coadd, catalogue(wcs, places))
    assert task.metadata["n_candidates"] == 20
    assert 8 <= task.metadata["n_stars"] <= 10


def test_too_few_stars_is_an_error_of_the_data(wcs):
    places = grid_of(3)
    with pytest.raises(CoaddPsfError) as caught:
        fit(coadd_with(wcs, places), catalogue(wcs, places))
    assert caught.value.metadata == {"n_candidates": 3, "n_stars": 3}


def test_a_catalogue_without_stars_on_the_coadd_is_an_error_of_the_data(wcs):
    with pytest.raises(CoaddPsfError):
        fit(coadd_with(wcs, []), catalogue(wcs, [(100.0, 100.0)]))


def test_the_locus_is_where_most_bright_radii_agree():
    radius = np.array([2.0, 2.05, 1.95, 3.0, np.nan, 2.0])
    bright = np.array([True, True, True, True, True, False])
    assert list(on_stellar_locus(radius, bright, 0.1)) == [True, True, True, False, False, False]
