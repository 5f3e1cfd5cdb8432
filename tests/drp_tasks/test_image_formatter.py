"""Uncompressed images: plain extensions, the same pixels, readable by everybody's formatter."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, Config, DatasetType
from lsst.images import Box, MaskedImage

from drp_tasks.images import masked_image, plane, single_plane, wcs_of
from tests.drp_tasks.star_fields import bent_wcs

FORMATTER = "drp_tasks.image_formatter.UncompressedImageFormatter"


@pytest.fixture
def butler(tmp_path):
    config = Config()
    for storage_class in ("ImageV2", "MaskedImageV2"):
        config["datastore", "formatters", storage_class] = FORMATTER
    Butler.makeRepo(str(tmp_path / "repo"), config=config)
    with Butler.from_config(str(tmp_path / "repo"), run="images") as butler:
        for storage_class in ("ImageV2", "MaskedImageV2"):
            name = storage_class.lower()
            butler.registry.registerDatasetType(DatasetType(name, (), storage_class, universe=butler.dimensions))
        yield butler


@pytest.fixture
def image() -> MaskedImage:
    pixels = np.random.default_rng(0).normal(0, 5, (60, 70)).astype(np.float32)
    return masked_image(pixels, pixels**2, {"SAT": pixels > 9}, unit=u.nJy, wcs=bent_wcs(), start_xy=(5, 7))


def test_a_masked_image_comes_back_whole_and_in_part(butler, image):
    butler.put(image, "maskedimagev2")
    back = butler.get("maskedimagev2")
    assert np.array_equal(back.image.array, image.image.array)
    assert np.array_equal(plane(back, "SAT"), plane(image, "SAT"))
    assert np.allclose(wcs_of(back).all_pix2world(5, 7, 0), bent_wcs().all_pix2world(5, 7, 0), rtol=1e-13)
    part = butler.get("maskedimagev2", parameters={"bbox": Box.factory[10:20, 30:50]})
    assert np.array_equal(part.image.array, image.image.array[3:13, 25:45])


def test_planes_are_plain_extensions_that_any_reader_takes(butler, image):
    butler.put(image, "maskedimagev2")
    path = butler.getURI("maskedimagev2").ospath
    with fits.open(path, disable_image_compression=True) as hdus:
        assert all("ZIMAGE" not in hdu.header for hdu in hdus)
    assert np.array_equal(MaskedImage.read(path).variance.array, image.variance.array)


def test_a_single_plane_comes_back(butler):
    counts = np.arange(12, dtype=np.int16).reshape(3, 4)
    butler.put(single_plane(counts), "imagev2")
    assert np.array_equal(butler.get("imagev2").array, counts)
