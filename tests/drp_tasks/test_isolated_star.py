"""Sources of several visits become isolated stars, whatever the order they come in."""

import numpy as np
import pytest
from astropy.table import vstack
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.pipe.base import NoWorkFound
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d

from drp_tasks.isolated_star import (
    AssociateIsolatedStarConfig,
    AssociateIsolatedStarTask,
    IsolationCriteria,
    associate_isolated_stars,
    attach_references,
)
from drp_tasks.matching import separation
from tests.drp_tasks.synthetic_stars import DEC0, RA0, Errors, make_sky, observe

SKY = make_sky(40)
SEEN = observe(SKY, "ggri", Errors(centroid_mas=30.0, flux_relative=0.01))


def stars_of(sources, **criteria):
    return associate_isolated_stars(sources, IsolationCriteria(**criteria))


def beside(sources, star, offset_arcsec):
    """The sources of one star once more, next to it."""
    copy = sources[sources["truthId"] == star].copy()
    copy["dec"] += offset_arcsec / 3600
    copy["sourceId"] += 50_000
    return vstack([sources, copy])


def test_every_star_is_found_with_all_its_sources():
    members, stars = stars_of(SEEN.sources)
    counts = np.bincount(SEEN.sources["truthId"], minlength=40)
    assert len(stars) == (counts >= 2).sum()
    assert sorted(stars["nSource"]) == sorted(counts[counts >= 2])
    truth_of = {star: set(members["truthId"][members["isolatedStarId"] == star]) for star in stars["isolatedStarId"]}
    assert all(len(truth) == 1 for truth in truth_of.values())
    assert np.array_equal(stars["nSource_g"] + stars["nSource_r"] + stars["nSource_i"], stars["nSource"])


def test_star_position_is_the_mean_of_its_sources():
    members, stars = stars_of(SEEN.sources)
    star = stars[3]
    mine = members[members["isolatedStarId"] == star["isolatedStarId"]]
    assert star["ra"] == pytest.approx(np.mean(mine["ra"]), abs=1e-9)
    assert star["dec"] == pytest.approx(np.mean(mine["dec"]), abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_stars_and_their_ids_do_not_depend_on_the_order_of_sources(random):
    order = list(range(len(SEEN.sources)))
    random.shuffle(order)
    members, stars = stars_of(SEEN.sources)
    shuffled_members, shuffled_stars = stars_of(SEEN.sources[order])
    assert np.array_equal(members["sourceId"], shuffled_members["sourceId"])
    assert np.array_equal(members["isolatedStarId"], shuffled_members["isolatedStarId"])
    assert shuffled_stars["ra"] == pytest.approx(stars["ra"], abs=1e-11)


@pytest.mark.parametrize(("offset_arcsec", "lost"), [(0.2, 1), (1.5, 1), (2.5, 0)])
def test_a_star_with_a_neighbour_is_not_isolated(offset_arcsec, lost):
    _, alone = stars_of(SEEN.sources)
    members, _ = stars_of(beside(SEEN.sources, 5, offset_arcsec))
    assert len(set(members["truthId"])) == len(alone) - lost


def test_a_flagged_neighbour_still_disturbs_but_is_no_star():
    sources = beside(SEEN.sources, 5, 1.5)
    sources["flag"][len(SEEN.sources) :] = True
    members, stars = stars_of(sources)
    assert 5 not in members["truthId"]
    assert not members["flag"].any()
    assert len(stars) == len(stars_of(SEEN.sources)[1]) - 1


def test_extended_and_faint_sources_are_no_stars():
    sources = SEEN.sources.copy()
    sources["extendedness"][sources["truthId"] == 7] = 0.3
    sources["psfFluxErr"][sources["truthId"] == 8] *= 100
    members, _ = stars_of(sources)
    assert not {7, 8} & set(members["truthId"])


def test_a_measurement_that_the_psf_does_not_fit_is_left_out_and_its_star_stays():
    sources = SEEN.sources.copy()
    first, second = (np.flatnonzero(sources["truthId"] == star)[0] for star in (7, 8))
    sources["psfChi2"][[first, second]] = 4.0
    sources["psfFluxErr"][second] /= 10
    members, _ = stars_of(sources)
    lost = set(sources["sourceId"]) - set(members["sourceId"])
    assert sources["sourceId"][first] in lost
    assert sources["sourceId"][second] not in lost, "a bright star may show the PSF model's own error"
    assert {7, 8} <= set(members["truthId"])


def test_ids_start_where_told_and_no_source_gives_no_star():
    _, stars = associate_isolated_stars(SEEN.sources, IsolationCriteria(), first_id=3_000_000_000)
    assert stars["isolatedStarId"].min() == 3_000_000_000
    members, none = associate_isolated_stars(SEEN.sources[:0], IsolationCriteria())
    assert len(members) == len(none) == 0


def test_references_are_the_nearest_and_a_star_without_one_says_so():
    _, stars = stars_of(SEEN.sources)
    references = SEEN.references[10:]
    matched = attach_references(stars, references, 0.5)
    with_partner = matched["refCatId"] >= 0
    assert (~with_partner).any()
    assert separation(matched["ra"], matched["dec"], matched["refRa"], matched["refDec"])[with_partner].max() < 0.2
    assert np.array_equal(matched["refMag_r"][with_partner], SKY.magnitude["r"][matched["refCatId"][with_partner]])
    assert np.isnan(matched["refMag_r"][~with_partner]).all()
    assert np.isnan(matched["refRa"][~with_partner]).all()


def circle(radius_arcsec):
    return Circle(UnitVector3d(LonLat.fromDegrees(RA0, DEC0)), Angle.fromDegrees(radius_arcsec / 3600))


def test_task_keeps_to_its_tract_and_counts():
    task = AssociateIsolatedStarTask(config=AssociateIsolatedStarConfig())
    result = task.run([SEEN.sources], [SEEN.references], region=circle(70), tract=2)
    assert separation(result.stars["ra"], result.stars["dec"], RA0, DEC0).max() < 70.1
    assert result.stars["isolatedStarId"][0] == 2_000_000_000
    assert task.metadata["n_stars"] == len(result.stars) > 3


def test_task_has_no_work_where_no_star_is():
    task = AssociateIsolatedStarTask(config=AssociateIsolatedStarConfig())
    with pytest.raises(NoWorkFound, match="no isolated star"):
        task.run([SEEN.sources], [SEEN.references], region=circle(0.001), tract=0)
