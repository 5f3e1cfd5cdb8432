"""A template: patches warped onto a detector, each pixel from one patch, honest about what is missing."""

import lsst.pipe.base as pb
import numpy as np
import pytest

from drp_tasks.build_template import (
    BuildTemplateTask,
    PatchPart,
    assemble_template,
    decode_counts,
    encode_counts,
    needed_box,
)
from drp_tasks.images import plane, start_xy, unusable
from drp_tasks.warping import Box
from tests.drp_tasks.synthetic_fields import Stars, detector_wcs, draw, nanojansky_image

SHAPE = (120, 130)
DETECTOR_BOX = Box(0, 0, SHAPE[1], SHAPE[0])
TRACT_SHAPE = (200, 200)
TRACT = detector_wcs(TRACT_SHAPE)
DETECTOR_WCS = detector_wcs(SHAPE, rotation_deg=10.0)


def patch(box, *, level=0.0, bad=None, visits=3):
    """Part x0, y0, x1, y1 of a tract with one star at its centre."""
    x0, y0, x1, y1 = box
    tract = draw(Stars(np.array([99.5]), np.array([99.5]), np.array([1e4])), TRACT_SHAPE, 4.5) + level
    array = tract[y0:y1, x0:x1].astype(np.float32)
    planes = {} if bad is None else {"SAT": bad[y0:y1, x0:x1]}
    image = nanojansky_image(array, np.full_like(array, 9.0), TRACT, planes, start_xy=(x0, y0))
    return PatchPart(image, np.full(array.shape, visits, np.uint8))


LEFT, RIGHT = (0, 0, 110, 200), (90, 0, 200, 200)


def run(patches, border=0):
    config = BuildTemplateTask.ConfigClass()
    config.border = border
    task = BuildTemplateTask(config=config)
    return task.run(patches, wcs=DETECTOR_WCS, detector=DETECTOR_BOX), task.metadata


def test_two_patches_join_without_a_seam():
    both = assemble_template([patch(LEFT), patch(RIGHT)], DETECTOR_WCS, DETECTOR_BOX)
    whole = assemble_template([patch((0, 0, 200, 200))], DETECTOR_WCS, DETECTOR_BOX)
    assert both.covered.all()
    assert both.array == pytest.approx(whole.array, abs=1e-3)
    assert both.variance == pytest.approx(np.full(SHAPE, 9.0), rel=1e-3)


def test_a_star_keeps_its_flux_and_its_place_on_the_sky():
    template = assemble_template([patch((0, 0, 200, 200))], DETECTOR_WCS, DETECTOR_BOX)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    ra, dec = TRACT.all_pix2world(99.5, 99.5, 0)
    expected = [float(axis) for axis in DETECTOR_WCS.all_world2pix(ra, dec, 0)]
    total = template.array.sum()
    assert total == pytest.approx(1e4, rel=0.01)
    assert [(template.array * x).sum() / total, (template.array * y).sum() / total] == pytest.approx(expected, abs=0.02)


def test_where_patches_overlap_the_first_usable_pixel_counts():
    bad = np.zeros(TRACT_SHAPE, bool)
    bad[145:165, 95:105] = True
    patches = [patch(LEFT, level=1.0, bad=bad), patch(RIGHT, level=2.0, visits=5)]
    template = assemble_template(patches, DETECTOR_WCS, DETECTOR_BOX)
    ra, dec = TRACT.all_pix2world([92.0, 100.0], [45.0, 148.0], 0)
    column, row = (np.rint(axis).astype(int) for axis in DETECTOR_WCS.all_world2pix(ra, dec, 0))
    assert template.array[row, column] == pytest.approx([1.0, 2.0], abs=0.1)
    assert template.covered[row, column].all()
    assert list(template.count[row, column]) == [3, 5]
    assert not template.saturated[row, column].any()


def test_what_no_patch_covers_is_no_data_and_what_all_mask_says_why():
    bad = np.zeros(TRACT_SHAPE, bool)
    bad[60:64, 60:64] = True
    result, metadata = run([patch(LEFT, bad=bad)])
    template = result.template
    assert plane(template, "SAT").any()
    assert (plane(template, "NO_DATA") == unusable(template)).all()
    assert metadata["coverage"] == pytest.approx((~unusable(template)).mean())
    assert 0.4 < metadata["coverage"] < 0.8


def test_a_detector_off_the_coadds_is_no_work():
    with pytest.raises(pb.NoWorkFound, match=r"cover 0\.0%"):
        run([])


def test_only_the_part_of_a_patch_under_the_detector_is_needed():
    box = needed_box(Box(0, 0, 110, 200), TRACT, DETECTOR_WCS, DETECTOR_BOX)
    whole = assemble_template([patch(LEFT)], DETECTOR_WCS, DETECTOR_BOX)
    part = assemble_template([patch(box)], DETECTOR_WCS, DETECTOR_BOX)
    assert box.shape[0] < 200
    assert (part.covered == whole.covered).all()
    assert part.array == pytest.approx(whole.array, abs=1e-3)


def test_counts_of_visits_come_back_from_their_runs():
    count = np.zeros((6, 8), np.uint16)
    count[1:4, 2:7], count[3, 5] = 3, 2
    runs = encode_counts(count)
    assert len(runs) < count.size / 2
    assert (decode_counts(runs, count.shape) == count).all()
    with pytest.raises(ValueError, match="reshape"):
        decode_counts(runs, (5, 8))


def test_a_patch_beside_the_detector_is_not_needed():
    assert needed_box(Box(400, 0, 500, 200), TRACT, DETECTOR_WCS, DETECTOR_BOX) is None


def test_a_border_continues_the_sky_beyond_the_detector():
    patches = [patch((0, 0, 200, 200), level=1.0)]
    inside, metadata = run(patches)
    wide, with_border = run(patches, border=10)
    assert start_xy(wide.template) == (-10, -10)
    assert wide.template.image.array[10:-10, 10:-10] == pytest.approx(inside.template.image.array, abs=1e-3)
    assert wide.template.image.array[0, 60] == pytest.approx(1.0, abs=0.01)
    assert metadata["coverage"] == with_border["coverage"] == 1.0
