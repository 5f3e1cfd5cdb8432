"""Metrics of the object catalogue that need no truth: how narrow the stellar locus is.

Belongs here: what the colours of the tract's own stars tell. Doesn't: repeatability over visits
(`drp_tasks.calibration_metrics`), comparisons with truth (`drp_tasks.truth_metrics`).
"""

from __future__ import annotations

from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.metrics import Metric, metrics_to_table
from drp_tasks.robust import robust_sigma

LOCUS_SLOPE = 0.483
LOCUS_INTERCEPT = -0.042
"""The straight part of the stellar locus: r − i = slope × (g − r) + intercept (analysis_tools' wPerp)."""

LOCUS_COLOURS = (0.28, 1.0)
"""Range of g − r, in magnitudes, within which the locus is straight."""

_BANDS = ("g", "r", "i")


def distance_from_locus(g: NDArray[np.float64], r: NDArray[np.float64], i: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance [mag] from the locus, perpendicular to it, of stars of magnitudes g, r, i (n,)."""
    return ((r - i) - LOCUS_SLOPE * (g - r) - LOCUS_INTERCEPT) / np.hypot(1, LOCUS_SLOPE)


def locus_stars(objects: Table, *, signal_to_noise: float, max_extendedness: float) -> NDArray[np.bool_]:
    """Choose from an object table (n,) primary, unflagged, unresolved objects of high S/N in r, measured in g, r, i."""
    flux = {band: np.asarray(objects[f"{band}_psfFlux"], np.float64) for band in _BANDS}
    chosen = np.asarray(objects["detect_isPrimary"], bool).copy()
    for band in _BANDS:
        chosen &= ~np.asarray(objects[f"{band}_flag"], bool) & (np.nan_to_num(flux[band]) > 0)
    error = np.asarray(objects["r_psfFluxErr"], np.float64)
    chosen &= np.nan_to_num(flux["r"]) > signal_to_noise * np.nan_to_num(error, nan=np.inf)
    extendedness = np.asarray(objects["r_extendedness"], np.float64)
    return chosen & (np.abs(np.nan_to_num(extendedness, nan=np.inf)) < max_extendedness)


def locus_metrics(objects: Table, *, signal_to_noise: float, max_extendedness: float, min_stars: int) -> list[Metric]:
    """Measure the width of the stellar locus (wPerp) and its offset (wPerpMedian).

    Parameters
    ----------
    objects
        Object table with psfFlux, psfFluxErr and flag of g, r and i, r_extendedness and detect_isPrimary.
    signal_to_noise, max_extendedness
        Which objects are stars good enough, see `locus_stars`.
    min_stars
        With fewer, the metrics aren't measurable.

    Returns
    -------
    metrics
        Both in mmag. The width is a robust standard deviation; it contains the stars' own scatter.
    """
    names = ("wPerp", "wPerpMedian")
    missing = [band for band in _BANDS if f"{band}_psfFlux" not in objects.colnames]
    if missing:
        why = f"no object has a flux in {', '.join(missing)}"
        return [Metric.unmeasurable(name, "mmag", why) for name in names]
    stars = objects[locus_stars(objects, signal_to_noise=signal_to_noise, max_extendedness=max_extendedness)]
    g, r, i = (-2.5 * np.log10(np.asarray(stars[f"{band}_psfFlux"], np.float64)) for band in _BANDS)
    straight = (g - r > LOCUS_COLOURS[0]) & (g - r < LOCUS_COLOURS[1])
    distance = 1e3 * distance_from_locus(g, r, i)[straight]
    if len(distance) < min_stars:
        why = f"{len(distance)} stars of S/N {signal_to_noise:g} on the straight part of the locus, {min_stars} needed"
        return [Metric.unmeasurable(name, "mmag", why, n=len(distance)) for name in names]
    how = f"stars of S/N > {signal_to_noise:g} in r with {LOCUS_COLOURS[0]} < g - r < {LOCUS_COLOURS[1]}"
    values = (robust_sigma(distance), float(np.median(distance)))
    return [
        Metric(name, "", value, "mmag", len(distance), detail=how) for name, value in zip(names, values, strict=True)
    ]


class ObjectMetricsConnections(pb.PipelineTaskConnections, dimensions=("skymap", "tract")):  # type: ignore[call-arg]
    """Inputs and outputs of `ObjectMetricsTask`."""

    objects = ct.Input(
        name="object", doc="Objects of the tract.", storageClass="ArrowAstropy", dimensions=("skymap", "tract")
    )
    metrics = ct.Output(
        name="object_metrics",
        doc="Metrics, a row each: metric, band, value, unit, n, measurable, detail.",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract"),
    )


class ObjectMetricsConfig(pb.PipelineTaskConfig, pipelineConnections=ObjectMetricsConnections):  # type: ignore[call-arg]
    """Configuration of `ObjectMetricsTask`."""

    minSignalToNoise = pc.Field[float](doc="Least S/N in r of the locus's stars.", default=200.0)
    maxExtendedness = pc.Field[float](doc="Largest modulus of a star's extendedness in r [mag].", default=0.03)
    minStars = pc.Field[int](doc="Fewest stars that measure a locus.", default=20)


class ObjectMetricsTask(pb.PipelineTask):
    """Measure the metrics of the object catalogue that need no truth."""

    ConfigClass = ObjectMetricsConfig
    config: ObjectMetricsConfig
    _DefaultName = "measureObjectMetrics"

    def run(self, objects: Table) -> pb.Struct:
        """Measure them; parameters and results as the connections say."""
        metrics: list[Metric] = locus_metrics(
            objects,
            signal_to_noise=self.config.minSignalToNoise,
            max_extendedness=self.config.maxExtendedness,
            min_stars=self.config.minStars,
        )
        table: Any = metrics_to_table(metrics)
        self.metadata["n_objects"] = len(objects)
        return pb.Struct(metrics=table)
