"""The table of sources: its columns and units, what is flagged, what is extended."""

import astropy.units as u
import numpy as np
import pytest

from drp_tasks.psf import fit_psf
from drp_tasks.source_measurement import extendedness, identified, measure_sources, rows_near
from drp_tasks.visit_facts import VisitFacts
from tests.drp_tasks.star_fields import bent_wcs, star_field

FACTS = VisitFacts(2026110100003, 7, "r", "r_57", 20261101, 61345.3, 30.0)


@pytest.fixture(scope="module")
def field():
    return star_field(seed=60)


@pytest.fixture(scope="module")
def psf(field):
    return fit_psf(field.image, field.variance, field.bad, field.x, field.y)[0]


def test_every_source_is_measured_with_units(field, psf):
    table = measure_sources(field.image, field.variance, field.bad, psf, field.x, field.y, unit=u.electron)
    assert len(table) == len(field.x)
    assert table["psfFlux"].unit == table["apFluxErr"].unit == u.electron
    assert table["x"].unit == table["xErr"].unit == u.pix
    assert not table["flag"].any()
    assert np.median(table["psfFlux"] / field.flux) == pytest.approx(1.0, abs=0.01)


def test_what_touches_bad_pixels_is_flagged_and_what_is_lost_is_left_out(field, psf):
    bad = field.bad.copy()
    bad[:, round(field.x[0]) + 2] = True
    table = measure_sources(
        field.image, field.variance, bad, psf, np.r_[field.x, -50.0], np.r_[field.y, 10.0], unit=u.electron
    )
    assert len(table) == len(field.x)
    assert table["flag"][0]
    assert table["flag"].mean() < 0.4


def test_identified_sources_know_where_they_are(field, psf):
    sources = measure_sources(field.image, field.variance, field.bad, psf, field.x, field.y, unit=u.nJy)
    table = identified(sources, FACTS, bent_wcs())
    ra, dec = bent_wcs().all_pix2world(table["x"], table["y"], 0)
    assert np.allclose(table["ra"], ra)
    assert np.allclose(table["dec"], dec)
    assert table["ra"].unit == u.deg
    assert len(np.unique(table["sourceId"])) == len(table)
    assert set(table["visit"]) == {FACTS.visit}
    assert table["psfFlux"].unit == u.nJy
    assert len(identified(sources[:0], FACTS, bent_wcs())) == 0


def test_stars_define_zero_extendedness():
    psf_flux = np.array([100.0, 200.0, 300.0, 100.0, -5.0])
    aperture_flux = np.array([98.0, 196.0, 294.0, 130.0, 3.0])
    found = extendedness(psf_flux, aperture_flux, np.array([True, True, True, False, False]))
    assert found[:3] == pytest.approx(0, abs=1e-6)
    assert found[3] == pytest.approx(2.5 * np.log10(1.3 / 0.98), rel=1e-5)
    assert np.isnan(found[4])
    assert found.dtype == np.float32


def test_rows_are_found_by_place_and_strangers_are_not(field, psf):
    sources = measure_sources(field.image, field.variance, field.bad, psf, field.x, field.y, unit=u.nJy)
    rows = rows_near(sources, np.array([field.x[5] + 0.3, 3.0]), np.array([field.y[5], 3.0]), 1.5)
    assert list(rows) == [5, -1]
    assert list(rows_near(sources[:0], np.array([3.0]), np.array([3.0]), 1.5)) == [-1]
