"""The effective time: what a better or worse night is worth."""

import pytest

from drp_tasks import camera
from drp_tasks.visit_facts import VisitFacts
from drp_tasks.visit_summary import REFERENCE_SEEING_ARCSEC, effective_time

FACTS = VisitFacts(2026110100003, 7, "r", "r_57", 20261101, 61345.3, 30.0)
NOMINAL = {
    "zero_point": camera.NOMINAL_ZERO_POINTS["r"],
    "fwhm_arcsec": REFERENCE_SEEING_ARCSEC,
    "sky_electron": 690.0,
    "nominal_sky_electron_s": 23.0,
}


def test_a_nominal_exposure_is_worth_its_time():
    assert effective_time(FACTS, **NOMINAL) == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("changed", "factor"),
    [({"fwhm_arcsec": 1.4}, 0.25), ({"sky_electron": 1380.0}, 0.5), ({"zero_point": 31.8 - 0.75257}, 0.25)],
)
def test_seeing_sky_and_clouds_cost_what_they_cost_in_depth(changed, factor):
    assert effective_time(FACTS, **{**NOMINAL, **changed}) == pytest.approx(30.0 * factor, rel=1e-4)


def test_a_longer_exposure_of_the_same_sky_is_worth_more():
    twice = VisitFacts(2026110100003, 7, "r", "r_57", 20261101, 61345.3, 60.0)
    zero_point = NOMINAL["zero_point"] + 0.752575
    assert effective_time(twice, **{**NOMINAL, "zero_point": zero_point, "sky_electron": 1380.0}) == pytest.approx(60.0)
