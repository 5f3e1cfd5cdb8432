"""Property maps: visits counted, depth told, overlaps not counted twice, stored by the Butler."""

import astropy.units as u
import lsst.pipe.base as pb
import numpy as np
import pytest
from lsst.daf.butler import Butler, Config, DatasetType

from drp_tasks.images import masked_image, single_plane
from drp_tasks.property_maps import MakePropertyMapsConfig, MakePropertyMapsTask, mean_map, sample_patch
from drp_tasks.skymap import TangentSkyMap, register_skymap
from drp_tasks.warping import Box
from tests.drp_tasks.synthetic_coadds import SIGMA, SKYMAP, gaussian_psf

VARIANCE = 9.0


def samples(patch, counts, *, psf=True):
    outer = SKYMAP.outer_box(patch)
    shape = outer.shape
    count = np.broadcast_to(np.asarray(counts, np.int16), shape).copy()
    start = (outer.x.start, outer.y.start)
    coadd = masked_image(
        np.zeros(shape), np.where(count > 0, VARIANCE, 0), {"NO_DATA": count == 0}, unit=u.nJy, start_xy=start
    )
    return sample_patch(
        SKYMAP.wcs(),
        Box.of(SKYMAP.inner_box(patch)),
        single_plane(count, start_xy=start),
        coadd,
        gaussian_psf() if psf else None,
        2,
    )


def value_at(sky_map, x, y):
    ra, dec = SKYMAP.wcs().all_pix2world(x, y, 0)
    return float(sky_map.get_values_pos(float(ra), float(dec)))


def test_the_map_counts_visits():
    maps = MakePropertyMapsTask().run([samples(0, 4), samples(1, 6)])
    assert value_at(maps.exposureCount, 60, 80) == pytest.approx(4)
    assert value_at(maps.exposureCount, 260, 80) == pytest.approx(6)


def test_patches_do_not_count_their_overlap_twice():
    left, right = samples(0, 4), samples(1, 6)
    x = [SKYMAP.wcs().all_world2pix(part.ra, part.dec, 0)[0] for part in (left, right)]
    assert x[0].max() < SKYMAP.patch_px - 0.5 < x[1].min()


def test_the_depth_is_that_of_a_point_source_at_five_sigma():
    maps = MakePropertyMapsTask().run([samples(0, 4)])
    noise = np.sqrt(VARIANCE * 4 * np.pi * SIGMA**2)
    assert value_at(maps.depth, 60, 80) == pytest.approx(31.4 - 2.5 * np.log10(5 * noise), abs=0.01)


def test_where_no_visit_was_the_maps_know_nothing():
    counts = np.full(SKYMAP.outer_box(0).shape, 3)
    counts[:, :80] = 0
    maps = MakePropertyMapsTask(config=MakePropertyMapsConfig(nside=65536)).run([samples(0, counts)])
    for sky_map in (maps.exposureCount, maps.depth):
        assert value_at(sky_map, 30, 80) == sky_map.sentinel
        assert value_at(sky_map, 130, 80) > 0


def test_a_patch_without_a_psf_is_counted_but_has_no_depth():
    maps = MakePropertyMapsTask().run([samples(0, 4, psf=False)])
    assert value_at(maps.exposureCount, 60, 80) == pytest.approx(4)
    assert value_at(maps.depth, 60, 80) == maps.depth.sentinel


def test_no_visit_at_all_is_no_work():
    with pytest.raises(pb.NoWorkFound):
        MakePropertyMapsTask().run([samples(0, 0)])
    with pytest.raises(pb.NoWorkFound):
        MakePropertyMapsTask().run([])


def test_a_butler_that_is_told_the_formatter_keeps_maps(tmp_path):
    config = Config()
    config["datastore", "formatters", "HealSparseMap"] = "drp_tasks.healsparse_formatter.HealSparseMapFormatter"
    Butler.makeRepo(str(tmp_path), config=config)
    butler = Butler.from_config(str(tmp_path), writeable=True, run="maps")
    register_skymap(butler, TangentSkyMap("test", ((53.1, -28.1),)))
    kind = DatasetType("test_map", ("skymap",), "HealSparseMap", universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    pixels = np.array([1000, 1001, 123456])
    written = mean_map(pixels, np.array([1.0, 2.0, 3.0]), 32, 4096)
    ref = butler.put(written, kind, skymap="test")
    np.testing.assert_array_equal(butler.get(ref).get_values_pix(pixels), [1.0, 2.0, 3.0])
    assert butler.get(ref, parameters={"degrade_nside": 1024}).nside_sparse == 1024
    assert butler.get(ref.makeComponentRef("coverage")).coverage_mask.sum() == 2
