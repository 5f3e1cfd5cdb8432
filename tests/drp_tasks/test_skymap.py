"""Tracts and patches."""

import numpy as np
import pytest
from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.sphgeom import ConvexPolygon

from drp_tasks.skymap import TangentSkyMap, register_skymap

SKYMAP = TangentSkyMap("test", ((53.1, -28.1),), patches_x=3, patches_y=2, patch_px=100, border_px=10)


@pytest.fixture
def butler(tmp_path):
    Butler.makeRepo(str(tmp_path))
    return Butler.from_config(str(tmp_path), writeable=True)


def test_inner_boxes_tile_the_tract():
    covered = np.zeros(SKYMAP.tract_box.shape, dtype=int)
    for patch in range(SKYMAP.patch_count):
        covered[SKYMAP.inner_box(patch).slice_within(SKYMAP.tract_box)] += 1
    assert (covered == 1).all()


def test_outer_boxes_add_the_border_inside_the_tract_only():
    box = SKYMAP.outer_box(1)
    assert (box.x.start, box.x.stop, box.y.start, box.y.stop) == (90, 210, 0, 110)


def test_each_point_of_the_tract_belongs_to_one_patch():
    x, y = np.meshgrid(np.linspace(-0.5, 299.4, 300), np.linspace(-0.5, 199.4, 200))
    owners = sum(SKYMAP.contains(patch, x, y).astype(int) for patch in range(SKYMAP.patch_count))
    assert (owners == 1).all()
    assert SKYMAP.contains(4, np.array([100.0]), np.array([150.0])) == [True]


def test_points_off_the_tract_belong_to_no_patch():
    assert not any(SKYMAP.contains(patch, np.array(-1.0), np.array(5.0)) for patch in range(SKYMAP.patch_count))


def test_the_centre_of_the_tract_is_where_it_was_asked_for():
    assert SKYMAP.wcs().pixel_to_world_values(149.5, 99.5) == pytest.approx((53.1, -28.1))


def test_a_pixel_has_the_size_that_was_asked_for():
    wcs = SKYMAP.wcs()
    separation = wcs.pixel_to_world(149.5, 99.5).separation(wcs.pixel_to_world(150.5, 99.5))
    assert separation.arcsec == pytest.approx(0.2, rel=1e-6)


def test_the_regions_of_patches_cover_that_of_the_tract_together():
    corners = [vertex for patch in range(SKYMAP.patch_count) for vertex in SKYMAP.patch_region(0, patch).getVertices()]
    hull, tract = ConvexPolygon.convexHull(corners), SKYMAP.tract_region()
    assert hull.getCentroid().dot(tract.getCentroid()) == pytest.approx(1.0, abs=1e-15)
    assert hull.getBoundingCircle().getOpeningAngle().asDegrees() == pytest.approx(
        tract.getBoundingCircle().getOpeningAngle().asDegrees(), rel=1e-6
    )


def test_a_patch_that_is_not_there_is_named_in_the_error():
    with pytest.raises(ValueError, match="there is no 6"):
        SKYMAP.inner_box(6)


def test_parameters_survive_the_butler(butler):
    register_skymap(butler, SKYMAP)
    stored = butler.get("skyMap", skymap="test", collections="skymaps")
    assert TangentSkyMap.from_dict(stored) == SKYMAP


def test_registering_twice_changes_nothing(butler):
    register_skymap(butler, SKYMAP)
    register_skymap(butler, SKYMAP)
    assert len(butler.query_dimension_records("patch", skymap="test")) == SKYMAP.patch_count
    assert len(butler.query_datasets("skyMap", collections="skymaps")) == 1


def test_another_skymap_of_the_same_name_is_refused(butler):
    register_skymap(butler, SKYMAP)
    with pytest.raises(ConflictingDefinitionError):
        register_skymap(butler, TangentSkyMap("test", ((53.1, -28.1),)))
