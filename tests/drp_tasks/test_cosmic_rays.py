"""Cosmic rays: they are found and stars spared, and it is what astroscrappy finds, pixel for pixel."""

import astroscrappy
import numpy as np
import pytest

from drp_tasks.cosmic_rays import find_cosmic_rays
from tests.drp_tasks.star_fields import READ_NOISE, SKY, star_field

SATURATION = 9e4


def test_cosmic_rays_are_found_and_stars_are_not():
    field = star_field(seed=40)
    rng = np.random.default_rng(41)
    image, hit = field.image + np.float32(SKY), field.bad.copy()
    for _ in range(10):
        row, column = rng.integers(20, 280, 2)
        image[row, column : column + 12] += 1500
        hit[row, column : column + 12] = True
    found = find_cosmic_rays(image, field.bad, read_noise=READ_NOISE, saturation=SATURATION, sigma=6.0, contrast=5.0)
    assert found[hit].mean() > 0.9
    stars = [
        found[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] & ~near(hit, x, y)
        for x, y in zip(field.x, field.y, strict=True)
    ]
    assert np.sum(stars) <= 2


def near(hit: np.ndarray, x: float, y: float) -> np.ndarray:
    box = hit[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
    return np.full(box.shape, box.any())


@pytest.mark.parametrize("seed", [50, 51, 52])
def test_the_pixels_are_those_that_astroscrappy_finds_up_to_the_edges(seed):
    image, bad = exposure_with_hits(seed)
    expected, _ = astroscrappy.detect_cosmics(
        image, inmask=bad, gain=1.0, readnoise=READ_NOISE, satlevel=SATURATION, sigclip=6.0, objlim=5.0, niter=1
    )
    found = find_cosmic_rays(image, bad, read_noise=READ_NOISE, saturation=SATURATION, sigma=6.0, contrast=5.0)
    assert expected.sum() > 100
    assert np.array_equal(found, expected)


def exposure_with_hits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a field with hits of all directions, some at the edge, a saturated star and some bad pixels."""
    field = star_field(seed=seed)
    rng = np.random.default_rng(seed)
    image = field.image + np.float32(SKY)
    for _ in range(30):
        row, column = rng.integers(0, 320, 2)
        angle, steps = rng.uniform(0, np.pi), np.arange(12)
        rows = np.clip(row + np.rint(steps * np.sin(angle)).astype(int), 0, 319)
        columns = np.clip(column + np.rint(steps * np.cos(angle)).astype(int), 0, 319)
        image[rows, columns] += rng.uniform(300, 3000)
    image[100:110, 200:210] = 1.1 * SATURATION
    image[50, 60] = 2 * SATURATION
    return image, field.bad | (rng.random(image.shape) < 1e-3)


def test_a_saturated_pixel_alone_is_a_cosmic_ray_and_a_saturated_star_is_none():
    image, _ = exposure_with_hits(53)
    nothing = np.zeros(image.shape, bool)
    found = find_cosmic_rays(image, nothing, read_noise=READ_NOISE, saturation=SATURATION, sigma=6.0, contrast=5.0)
    assert found[50, 60]
    assert not found[98:112, 198:212].any()
