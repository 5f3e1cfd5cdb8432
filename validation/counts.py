"""Is a product all there: what was expected against what was found, partition by partition.

Belongs here: pure checks of counts, names, rows and values, each giving a `CheckResult` that becomes an asset check.
Doesn't: asking the Butler what there is (`validation.products`), or metrics of the science (`validation.scorecard`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

NAMES_SHOWN = 10
"""How many of the missing ones a result names."""


class Severity(StrEnum):
    """How bad it is that a check didn't pass."""

    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found in one partition of one product.

    Parameters
    ----------
    name
        Of the check: completeness, rows or values.
    product
        Dataset type.
    partition
        day_obs or tract, as text; empty for an unpartitioned product.
    passed
        Whether all is well.
    severity
        Of a check that didn't pass.
    expected, found
        Datasets, tables or values.
    message
        One line.
    missing
        Names of the first few that are missing or wrong.
    """

    name: str
    product: str
    partition: str
    passed: bool
    severity: Severity
    expected: int
    found: int
    message: str
    missing: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether what depends on the product should wait."""
        return not self.passed and self.severity is Severity.ERROR

    @property
    def missing_fraction(self) -> float:
        """Share of the expected that isn't there; 0 where nothing is expected."""
        return max(0.0, 1 - self.found / self.expected) if self.expected else 0.0


def check_counts(
    product: str, expected: Mapping[str, int], found: Mapping[str, int], *, least_fraction: float = 0.9
) -> tuple[CheckResult, ...]:
    """Compare how many datasets there are with how many there should be.

    Parameters
    ----------
    product
        Dataset type.
    expected, found
        Datasets by partition; a partition that isn't in one of them counts as zero there.
    least_fraction
        Some missing is a warning down to this fraction, and an error below.

    Returns
    -------
    tuple of CheckResult
        One a partition, sorted. More than expected is a warning: the expectation is wrong, or something is there twice.
    """
    partitions = sorted({*expected, *found})
    return tuple(_completeness(product, p, expected.get(p, 0), found.get(p, 0), least_fraction) for p in partitions)


def check_datasets(
    product: str,
    expected: Mapping[str, Set[str]],
    found: Mapping[str, Set[str]],
    *,
    least_fraction: float = 0.9,
) -> tuple[CheckResult, ...]:
    """Compare which datasets there are with which there should be, and name the missing.

    Parameters
    ----------
    product
        Dataset type.
    expected, found
        Labels of data IDs by partition, such as ``2026110100001 R22_S11``.
    least_fraction
        Some missing is a warning down to this fraction, and an error below.

    Returns
    -------
    tuple of CheckResult
        One a partition, sorted. Only what is both expected and found counts as found; surplus alone is a warning.
    """
    results = []
    for partition in sorted({*expected, *found}):
        wanted, there = expected.get(partition, frozenset()), found.get(partition, frozenset())
        missing, surplus = sorted(wanted - there), sorted(there - wanted)
        hits = len(wanted & there)
        if missing or not surplus:
            shown = tuple(missing[:NAMES_SHOWN])
            results.append(_completeness(product, partition, len(wanted), hits, least_fraction, shown))
        else:
            results.append(_surplus(product, partition, len(wanted), len(there), tuple(surplus[:NAMES_SHOWN])))
    return tuple(results)


def check_rows(product: str, partition: str, rows: Mapping[str, int]) -> CheckResult:
    """See that tables have rows.

    Parameters
    ----------
    product
        Dataset type.
    partition
        What the tables belong to.
    rows
        Rows of each table, by the label of its data ID.

    Returns
    -------
    CheckResult
        Empty tables are a warning as long as any has rows, and an error if none has. No tables at all pass: that they
        are missing is for `check_datasets` to say.
    """
    empty = sorted(label for label, count in rows.items() if count == 0)
    total = sum(rows.values())
    severity = Severity.ERROR if total == 0 else Severity.WARN
    message = f"{total} rows in {len(rows)} tables" + (f", {len(empty)} of them empty" if empty else "")
    shown = tuple(empty[:NAMES_SHOWN])
    found = len(rows) - len(empty)
    return CheckResult("rows", product, partition, not empty, severity, len(rows), found, message, shown)


def check_values(
    product: str, partition: str, invalid: Mapping[str, int], total: int, *, most_fraction: float = 0.05
) -> CheckResult:
    """See that a table's columns hold numbers.

    Parameters
    ----------
    product
        Dataset type.
    partition
        What the table belongs to.
    invalid
        By column, how many rows have no finite number in it.
    total
        Rows.
    most_fraction
        Share of rows that may lack a number; more is a warning, and a column without any number an error.
    """
    wrong = {column: count for column, count in invalid.items() if count > most_fraction * total}
    void = [column for column, count in wrong.items() if count == total]
    severity = Severity.ERROR if void else Severity.WARN
    worst = sorted(wrong, key=lambda column: -wrong[column])
    described = ", ".join(f"{column} {100 * wrong[column] / total:.0f} %" for column in worst[:NAMES_SHOWN])
    message = f"no number in: {described}" if wrong else f"numbers in all {len(invalid)} columns"
    found = len(invalid) - len(wrong)
    shown = tuple(worst[:NAMES_SHOWN])
    return CheckResult("values", product, partition, not wrong, severity, len(invalid), found, message, shown)


def worst(results: Iterable[CheckResult]) -> CheckResult | None:
    """Pick the result an operator looks at first.

    Parameters
    ----------
    results
        Of any checks.

    Returns
    -------
    CheckResult or None
        Errors before warnings before passes, then the largest missing fraction; None of none.
    """
    return max(results, key=lambda r: (r.blocks, not r.passed, r.missing_fraction), default=None)


def _completeness(
    product: str, partition: str, expected: int, found: int, least_fraction: float, missing: tuple[str, ...] = ()
) -> CheckResult:
    if found > expected:
        return _surplus(product, partition, expected, found, ())
    passed = found == expected
    severity = Severity.WARN if found >= least_fraction * expected else Severity.ERROR
    message = f"{found} of {expected}"
    if not passed:
        message += f", {expected - found} missing"
    elif not expected:
        message = "none expected, none found"
    return CheckResult("completeness", product, partition, passed, severity, expected, found, message, missing)


def _surplus(product: str, partition: str, expected: int, found: int, names: tuple[str, ...]) -> CheckResult:
    message = f"{found} of {expected}, {found - expected} more than expected"
    return CheckResult("completeness", product, partition, False, Severity.WARN, expected, found, message, names)
