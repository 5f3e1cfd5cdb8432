"""A metric of the science: one number, its unit, how many things it rests on, and whether it could be measured at all.

Belongs here: the row that every metric table of the Butler is made of, and tables to rows and back.
Doesn't: computing metrics (`drp_tasks.calibration_metrics` and its siblings), or judging them against thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

import numpy as np
from astropy.table import Table


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured, or honestly unmeasurable, number of merit.

    Raises
    ------
    ValueError
        If a measurable metric has no finite value, or an unmeasurable one has a value or gives no reason.
    """

    metric: str
    """Its name, such as ``PA1``."""
    band: str
    """The band it was measured in; empty where it belongs to none."""
    value: float
    """The number; NaN where it is not measurable."""
    unit: str
    """Such as ``mmag``, ``mas`` or ``%``; empty for a pure number."""
    n: int
    """How many stars, pairs or detectors it rests on."""
    measurable: bool = True
    """False where these data cannot tell; such a metric is never passed."""
    detail: str = ""
    """How it was measured, or why it was not."""

    def __post_init__(self) -> None:
        if self.measurable and not math.isfinite(self.value):
            raise ValueError(f"{self.metric} {self.band}: a measurable metric needs a finite value, not {self.value}")
        if not self.measurable and not (math.isnan(self.value) and self.detail):
            raise ValueError(f"{self.metric} {self.band}: an unmeasurable metric has no value and says why")

    @classmethod
    def unmeasurable(cls, metric: str, unit: str, why: str, *, band: str = "", n: int = 0) -> Metric:
        """Make the row of a metric that these data cannot tell."""
        return cls(metric, band, math.nan, unit, n, False, why)


_COLUMN_TYPES: dict[str, type] = {
    "metric": str,
    "band": str,
    "value": np.float64,
    "unit": str,
    "n": np.int64,
    "measurable": np.bool_,
    "detail": str,
}


def metrics_to_table(metrics: Iterable[Metric]) -> Table:
    """Write metrics as a table, a row each, in their order.

    Parameters
    ----------
    metrics
        The rows; none at all gives a table with the columns and no rows.

    Returns
    -------
    table
        Columns as the fields of `Metric`.
    """
    rows = [astuple(metric) for metric in metrics]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_COLUMN_TYPES)
    return Table(
        {name: np.array(column, kind) for (name, kind), column in zip(_COLUMN_TYPES.items(), columns, strict=True)}
    )


def metrics_from_table(table: Table) -> list[Metric]:
    """Read metrics back from a table, whatever string type its storage gave it.

    Parameters
    ----------
    table
        A metric table, as `metrics_to_table` writes it; further columns are ignored.

    Returns
    -------
    metrics
        The rows in their order.

    Raises
    ------
    ValueError
        If a column is missing or a row contradicts itself.
    """
    missing = [field.name for field in fields(Metric) if field.name not in table.colnames]
    if missing:
        raise ValueError(f"not a metric table: it lacks {', '.join(missing)}")
    return [
        Metric(
            metric=str(row["metric"]),
            band=str(row["band"]),
            value=float(row["value"]),
            unit=str(row["unit"]),
            n=int(row["n"]),
            measurable=bool(row["measurable"]),
            detail=str(row["detail"]),
        )
        for row in table
    ]
