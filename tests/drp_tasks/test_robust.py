"""A few outliers move neither the scatter nor the weights of the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drp_tasks.robust import robust_sigma, robust_weights


def test_sigma_is_the_standard_deviation_of_normal_numbers_in_spite_of_outliers():
    values = np.random.default_rng(1).normal(3.0, 0.5, 4000)
    values[:40] = 1e6
    assert robust_sigma(values) == pytest.approx(0.5, rel=0.05)
    assert np.isnan(robust_sigma([]))


def test_sigma_about_a_given_center_includes_the_offset():
    assert robust_sigma([1.0, 1.0, 1.0], center=0.0) == pytest.approx(1.4826)


@given(arrays(float, st.integers(1, 50), elements=st.floats(-1e6, 1e6)))
def test_weights_are_between_none_and_full_and_fall_with_the_residual(residual):
    weight = robust_weights(residual)
    order = np.argsort(np.abs(residual))
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (np.diff(weight[order]) <= 0).all()


def test_small_residuals_keep_their_weight_and_gross_ones_lose_it():
    assert robust_weights([0.1, -0.2, 0.3, 3.0, 50.0]) == pytest.approx([1, 1, 1, 2 / 3, 0])


def test_the_bulk_counts_even_if_errors_were_underestimated():
    weight = robust_weights(np.random.default_rng(2).normal(0, 30, 500))
    assert np.mean(weight > 0.5) > 0.95
