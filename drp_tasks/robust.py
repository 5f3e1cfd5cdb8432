"""Statistics that a few outliers do not move, for the fits and metrics over many stars.

Belongs here: the robust scatter, and the weights of iteratively reweighted least squares.
Doesn't: any knowledge of what the numbers are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

type Floats = NDArray[np.float64]


def robust_sigma(values: ArrayLike, center: float | None = None) -> float:
    """Standard deviation estimated from the median absolute deviation.

    Parameters
    ----------
    values
        Finite numbers of any shape.
    center
        Where deviations are taken from; the median unless told.

    Returns
    -------
    sigma
        1.4826 times the median absolute deviation, the standard deviation of a normal distribution; NaN without values.
    """
    numbers = np.asarray(values, float)
    if not numbers.size:
        return float("nan")
    middle = float(np.median(numbers)) if center is None else center
    return float(1.4826 * np.median(np.abs(numbers - middle)))


def robust_weights(residual: ArrayLike, *, tuning: float = 2.0, cutoff: float = 5.0) -> Floats:
    """Weights for the next iteration of a least-squares fit: Huber's, and none for gross outliers.

    Parameters
    ----------
    residual
        Residuals in units of their expected standard deviation, any shape.
    tuning
        Residuals below this keep their weight; above, the weight falls as its inverse (Huber 1964).
    cutoff
        Residuals above this have weight 0.

    Returns
    -------
    weight
        Factors in [0, 1] on the squared residuals, the shape of ``residual``. If the residuals scatter more than
        expected, they are measured in units of their own robust scatter, so that the bulk always counts.
    """
    size = np.abs(np.asarray(residual, float))
    scale = max(1.0, robust_sigma(size, center=0.0)) if size.size else 1.0
    size = size / scale
    return np.where(size > cutoff, 0.0, 1.0 / np.maximum(1.0, size / tuning))
