"""Positions on the sky are matched the same way everywhere, at RA = 0 and at the poles too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drp_tasks.matching import (
    from_tangent_plane,
    link_friends,
    match_sky,
    neighbour_distance,
    pairs_between,
    separation,
    sky_position,
    to_tangent_plane,
    unit_vectors,
)

right_ascensions = st.floats(0, 359.999999)
declinations = st.floats(-89.9, 89.9)


@given(right_ascensions, declinations)
def test_unit_vectors_lead_back_to_the_position(ra, dec):
    back_ra, back_dec = sky_position(unit_vectors(ra, dec))
    assert separation(ra, dec, back_ra, back_dec) < 1e-8
    assert 0 <= back_ra < 360


@given(right_ascensions, declinations, st.floats(-3600, 3600), st.floats(-3600, 3600))
def test_tangent_plane_leads_back_to_the_position(ra0, dec0, xi, eta):
    ra, dec = from_tangent_plane(xi, eta, ra0, dec0)
    back_xi, back_eta = to_tangent_plane(ra, dec, ra0, dec0)
    assert back_xi == pytest.approx(xi, abs=1e-6)
    assert back_eta == pytest.approx(eta, abs=1e-6)


def test_tangent_plane_grows_to_the_east_and_the_north():
    xi, eta = to_tangent_plane([53.1 + 1 / 3600, 53.1], [-28.1, -28.1 + 1 / 3600], 53.1, -28.1)
    assert xi == pytest.approx([np.cos(np.radians(28.1)), 0], abs=1e-6)
    assert eta == pytest.approx([0, 1], abs=1e-5)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 10.0), (359.9999999, -40.0), (123.0, 89.9), (200.0, -89.9)])
def test_each_position_finds_its_shifted_self_wherever_on_the_sky(ra, dec):
    rng = np.random.default_rng(3)
    xi, eta = rng.uniform(-300, 300, (2, 60))
    here = from_tangent_plane(xi, eta, ra, dec)
    order = rng.permutation(60)
    there = from_tangent_plane(xi[order] + 0.06, eta[order] - 0.08, ra, dec)

    index, distance = match_sky(*here, *there, radius_arcsec=0.5)

    assert np.array_equal(order[index], np.arange(60))
    assert distance == pytest.approx(0.1, abs=1e-5)


def test_beyond_the_radius_nothing_matches():
    index, distance = match_sky([10.0], [0.0], [10.0], [1.01 / 3600], radius_arcsec=1.0)
    assert index.tolist() == [-1]
    assert np.isinf(distance).all()


def test_an_empty_list_and_a_nan_match_nobody():
    assert match_sky([10.0, 11.0], [0.0, 0.0], [], [], 5.0)[0].tolist() == [-1, -1]
    assert match_sky([], [], [10.0], [0.0], 5.0)[0].tolist() == []
    assert match_sky([np.nan, 10.0], [0.0, 0.0], [np.nan, 10.0], [0.0, 0.0], 5.0)[0].tolist() == [-1, 1]


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), max_size=25), st.floats(0.1, 5))
def test_match_is_the_nearest_that_brute_force_finds(offsets, radius):
    here = from_tangent_plane(*np.array([[0.0, 0.0], [3.0, -2.0]]).T, 0.0, -30.0)
    xi, eta = np.array(offsets).reshape(-1, 2).T
    there = from_tangent_plane(xi, eta, 0.0, -30.0)

    _, distance = match_sky(*here, *there, radius)

    table = separation(here[0][:, None], here[1][:, None], *there)
    nearest = table.min(axis=1) if offsets else np.full(2, np.inf)
    assert distance == pytest.approx(np.where(nearest <= radius, nearest, np.inf), abs=1e-9)


def test_friends_of_friends_share_a_group_and_strangers_do_not():
    xi, eta = np.array([[0.0, 0.0], [0.4, 0.0], [0.8, 0.0], [5.0, 0.0], [5.0, 0.3], [20.0, 0.0]]).T
    group = link_friends(*from_tangent_plane(xi, eta, 0.0, 0.0), radius_arcsec=0.5)
    assert len({*group[:3].tolist()}) == len({*group[3:5].tolist()}) == 1
    assert len(set(group.tolist())) == 3
    assert link_friends([], [], 0.5).tolist() == []


@given(st.permutations(range(12)))
def test_grouping_does_not_depend_on_the_order(order):
    rng = np.random.default_rng(1)
    ra, dec = from_tangent_plane(*rng.uniform(0, 3, (2, 12)), 359.9999, 5.0)
    group = link_friends(ra, dec, 0.7)
    shuffled = link_friends(ra[list(order)], dec[list(order)], 0.7)
    together = group[list(order)][:, None] == group[list(order)]
    assert np.array_equal(together, shuffled[:, None] == shuffled)


def test_neighbour_distance_is_infinite_for_a_lonely_position():
    assert neighbour_distance([1.0], [2.0]).tolist() == [np.inf]
    assert neighbour_distance([0.0, 0.0, 0.0], [0.0, 1 / 3600, 3 / 3600]) == pytest.approx([1, 1, 2])


def test_pairs_lie_in_their_annulus_and_none_is_missed():
    rng = np.random.default_rng(2)
    ra, dec = from_tangent_plane(*rng.uniform(-300, 300, (2, 40)), 10.0, -60.0)
    pairs = pairs_between(ra, dec, 240, 360)
    table = separation(ra[:, None], dec[:, None], ra, dec)
    expected = np.argwhere(np.triu((table >= 240) & (table <= 360), 1))
    assert np.array_equal(pairs, expected)
    assert pairs_between([1.0], [1.0], 0, 10).shape == (0, 2)
