"""Raws read back: pixels through the Butler, facts from the header alone."""

import io

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from lsst.images import Box
from lsst.sphgeom import LonLat, UnitVector3d

from drp_tasks.instrument import SimCam
from drp_tasks.raw_formatter import (
    SimCamRawFormatter,
    dimension_records,
    observation_from_stream,
    read_observation,
)
from simulator.header import raw_header, write_raw
from simulator.optics import Optics
from simulator.survey import CI

SIZE = CI.detector_px


@pytest.fixture(scope="module")
def adu():
    return np.random.default_rng(1).integers(900, 60000, (SIZE, SIZE + 16)).astype(np.uint16)


@pytest.fixture(scope="module")
def raw(tmp_path_factory, adu):
    path = tmp_path_factory.mktemp("raw") / "raw.fits"
    write_raw(path, adu, raw_header(CI, CI.visits[0], 4))
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory, raw):
    root = str(tmp_path_factory.mktemp("repo"))
    Butler.makeRepo(root)
    butler = Butler.from_config(root, writeable=True, run="SimCam/raw/all")
    SimCam().register(butler.registry)
    info = read_observation(str(raw)).info
    for element, row in dimension_records(info).items():
        butler.registry.insertDimensionData(element, row)
    raw_type = DatasetType(*SimCam.raw_definition, universe=butler.dimensions)
    butler.registry.registerDatasetType(raw_type)
    data_id = butler.registry.expandDataId(instrument="SimCam", exposure=info.exposure_id, detector=info.detector_num)
    ref = DatasetRef(raw_type, data_id, run="SimCam/raw/all")
    butler.ingest(FileDataset(str(raw), [ref], formatter=SimCamRawFormatter), transfer="direct")
    return butler, ref


def test_the_butler_gives_all_pixels_in_adu_with_the_header(stored, adu):
    butler, ref = stored
    image = butler.get(ref)
    np.testing.assert_array_equal(image.array, adu.astype(np.float32))
    assert image.unit == "adu"
    assert image.metadata["DARKTIME"] == 31.0
    assert image.metadata["CCDSLOT"] == "S11"


def test_a_part_and_the_components_can_be_read_alone(stored, adu):
    butler, ref = stored
    part = butler.get(ref, parameters={"bbox": Box.factory[10:20, 30:50]})
    np.testing.assert_array_equal(part.array, adu[10:20, 30:50].astype(np.float32))
    assert butler.get(ref.makeComponentRef("bbox")) == Box.factory[0:SIZE, 0 : SIZE + 16]
    assert butler.get(ref.makeComponentRef("unit")) == "adu"
    sky = butler.get(ref.makeComponentRef("sky_projection")).pixel_to_sky(x=100.0, y=200.0)
    expected = Optics(CI, CI.visits[0], 4).header_wcs().pixel_to_world(100.0, 200.0)
    assert sky.separation(expected).arcsec < 1e-6


def test_the_header_alone_tells_who_and_where(raw):
    observation = read_observation(str(raw))
    assert (observation.info.exposure_id, observation.info.detector_num) == (CI.visits[0].id, 4)
    assert (observation.width, observation.height) == (SIZE, SIZE)


def test_no_more_than_the_primary_header_is_read(raw):
    stream = io.BytesIO(raw.read_bytes())
    observation_from_stream(stream)
    assert stream.tell() == len(fits.getheader(raw).tostring())


def test_the_footprint_holds_what_the_detector_really_saw(raw):
    footprint = read_observation(str(raw)).footprint()
    optics, half_field = Optics(CI, CI.visits[0], 4), CI.tract_px * 0.1
    x, y = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(-half_field, half_field, 60)]))
    column, row = optics.to_detector(x, y)
    seen = (column > 0) & (column < SIZE) & (row > 0) & (row < SIZE)
    pixel = CI.tract_px / 2 - 0.5
    ra, dec = CI.skymap.wcs().pixel_to_world_values(x / 0.2 + pixel, y / 0.2 + pixel)
    inside = [footprint.contains(UnitVector3d(LonLat.fromDegrees(*point))) for point in zip(ra, dec, strict=True)]
    assert seen.sum() > 100
    assert all(np.array(inside)[seen])
    assert not all(inside)


def test_exposure_records_carry_the_observation(raw):
    records = dimension_records(read_observation(str(raw)).info)
    assert list(records) == ["day_obs", "group", "exposure"]
    exposure = records["exposure"]
    assert (exposure["id"], exposure["seq_num"], exposure["day_obs"]) == (CI.visits[0].id, 1, 20261101)
    assert exposure["physical_filter"] == "g_6"
    assert records["day_obs"]["timespan"].contains(exposure["timespan"])


def test_what_is_no_raw_of_ours_is_refused():
    stream = io.BytesIO()
    fits.PrimaryHDU(header=fits.Header({"INSTRUME": "LSSTCam"})).writeto(stream)
    stream.seek(0)
    with pytest.raises(ValueError, match="LSSTCam"):
        observation_from_stream(stream)
    with pytest.raises(ValueError, match="no end"):
        observation_from_stream(io.BytesIO(b"\0" * 5000))
