"""PSF stars: bright, isolated, of one width."""

import galsim
import numpy as np
import pytest

from drp_tasks.psf_stars import PsfCandidates, select_psf_stars, stellar_radius
from tests.drp_tasks.star_fields import StarField, draw_stars, star_field


@pytest.fixture(scope="module")
def field() -> StarField:
    return star_field(seed=50)


def chosen(image: np.ndarray, field: StarField, bad: np.ndarray | None = None) -> PsfCandidates:
    return select_psf_stars(
        image,
        field.variance,
        field.bad if bad is None else bad,
        threshold=5.0,
        min_signal_to_noise=20.0,
        width_tolerance=0.1,
        isolation_px=12.0,
    )


def distance(found: PsfCandidates, x: float, y: float) -> float:
    return float(np.hypot(found.x - x, found.y - y).min())


def test_stars_are_found_at_their_places(field):
    found = chosen(field.image, field)
    assert len(found.x) > 30
    assert np.median([distance(found, x, y) for x, y in zip(field.x, field.y, strict=True)]) < 0.05
    assert found.half_light_radius == pytest.approx(2.4, abs=0.15)


def test_galaxies_are_not_chosen(field):
    stamp = galsim.ImageD(61, 61)
    (galsim.Exponential(half_light_radius=4.0) * 2e5).drawImage(stamp, scale=1.0, method="no_pixel")
    image = field.image.copy()
    image[55:116, 55:116] += stamp.array.astype(np.float32)
    assert distance(chosen(image, field), 85, 85) > 5


def test_a_star_with_a_bright_neighbour_is_not_chosen(field):
    beside = draw_stars(field.x[:1] + 8, field.y[:1], np.array([2e5]), 320)
    image = field.image + draw_stars(field.x[:1], field.y[:1], np.array([2e5]), 320) + beside
    assert distance(chosen(image.astype(np.float32), field), field.x[0], field.y[0]) > 3


def test_an_empty_image_has_no_stars(field):
    found = chosen(np.zeros_like(field.image), field)
    assert len(found.x) == 0


def test_the_stellar_radius_is_where_the_narrow_half_clusters():
    rng = np.random.default_rng(0)
    radii = np.r_[rng.normal(2.4, 0.05, 20), rng.uniform(3, 8, 15)]
    assert stellar_radius(radii) == pytest.approx(2.4, abs=0.06)
    assert np.isnan(stellar_radius(np.zeros(0)))
