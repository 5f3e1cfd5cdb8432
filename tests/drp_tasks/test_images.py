"""Images keep pixels, masks, units, boxes and projections through files and through the Butler."""

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS
from lsst.daf.butler import Butler, DatasetType
from lsst.images import MaskedImage

from drp_tasks.images import (
    MASK_PLANES,
    UNUSABLE,
    masked_image,
    nanojansky_per_electron,
    plane,
    single_plane,
    start_xy,
    to_nanojansky,
    unusable,
    wcs_from_text,
    wcs_of,
    wcs_to_text,
)
from tests.drp_tasks.star_fields import bent_wcs

SHAPE = (40, 50)
PLACES = np.array([1000.0, 1020.3, 1049.0]), np.array([-20.0, -3.7, 19.0])


@pytest.fixture
def patch() -> MaskedImage:
    rng = np.random.default_rng(0)
    array = rng.normal(0, 5, SHAPE).astype(np.float32)
    masks = {"BAD": array > 8, "CLIPPED": array < -8, "DETECTED": array > 0}
    return masked_image(
        array, array**2, masks, unit=u.nJy, wcs=bent_wcs(), start_xy=(1000, -20), metadata={"zeroPoint": 31.25}
    )


def assert_same(back: MaskedImage, image: MaskedImage) -> None:
    assert np.array_equal(back.image.array, image.image.array)
    assert np.array_equal(back.variance.array, image.variance.array)
    assert back.unit == u.nJy
    assert back.variance.unit == u.nJy**2
    assert back.metadata["zeroPoint"] == 31.25
    assert start_xy(back) == (1000, -20)
    for name in MASK_PLANES.names:
        assert np.array_equal(plane(back, name), plane(image, name))
    assert_same_wcs(wcs_of(back), bent_wcs())


def assert_same_wcs(found: WCS, wcs: WCS) -> None:
    assert np.allclose(found.all_pix2world(*PLACES, 0), wcs.all_pix2world(*PLACES, 0), rtol=0, atol=1e-10)
    sky = wcs.all_pix2world(*PLACES, 0)
    assert np.allclose(found.all_world2pix(*sky, 0), PLACES, rtol=0, atol=1e-4)


def test_an_image_is_the_same_after_a_file(patch, tmp_path):
    patch.write(str(tmp_path / "patch.fits"))
    assert_same(MaskedImage.read(str(tmp_path / "patch.fits")), patch)


def test_an_image_is_the_same_after_the_butler(patch, tmp_path):
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), run="images") as butler:
        butler.registry.registerDatasetType(DatasetType("patch_image", (), "MaskedImageV2", universe=butler.dimensions))
        butler.put(patch, "patch_image")
        assert_same(butler.get("patch_image"), patch)


def test_the_distortion_survives_even_with_an_approximate_inverse():
    wcs = bent_wcs()
    wcs.sip = type(wcs.sip)(wcs.sip.a, wcs.sip.b, np.zeros((3, 3)), np.zeros((3, 3)), wcs.wcs.crpix)
    assert_same_wcs(wcs_of(single_plane(np.zeros(SHAPE), wcs=wcs)), bent_wcs())


def test_a_wcs_is_the_same_after_text():
    assert_same_wcs(wcs_from_text(wcs_to_text(bent_wcs())), bent_wcs())


def test_each_plane_keeps_its_own_bits_and_unusable_is_their_union(patch):
    assert np.array_equal(unusable(patch), plane(patch, "BAD") | plane(patch, "CLIPPED"))
    assert np.array_equal(unusable(patch, ("DETECTED",)), plane(patch, "DETECTED"))
    assert not plane(patch, "SAT").any()
    assert set(UNUSABLE) < set(MASK_PLANES.names)


def test_a_plane_that_does_not_exist_is_refused():
    zeros = np.zeros(SHAPE, np.float32)
    with pytest.raises(KeyError, match="BRIGHT"):
        masked_image(zeros, zeros, {"BRIGHT": zeros > 0}, unit=u.nJy)


def test_an_image_without_a_projection_has_no_wcs():
    with pytest.raises(ValueError, match="no projection"):
        wcs_of(single_plane(np.zeros(SHAPE)))


def test_one_electron_at_the_zero_point_of_a_nanojansky_is_one_nanojansky():
    assert nanojansky_per_electron(31.4) == pytest.approx(1.0)
    assert to_nanojansky(np.array([100.0]), 26.4) == pytest.approx([1e4])
