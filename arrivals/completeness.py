"""Whether a night is here: for each exposure, which detectors were expected and which have arrived.

Belongs here: comparing the ledger's announcements and the Butler's raws. Doesn't: the completeness of a release's steps
(`planning`), or deciding what to start (`sensors`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from lsst.daf.butler import Butler, MissingCollectionError, MissingDatasetTypeError
from lsst.pipe.base import Instrument

from arrivals.ledger import Ledger
from arrivals.records import ExposureRows
from arrivals.states import State
from resources.site import ArrivalSettings


@dataclass(frozen=True, slots=True)
class ExposureCompleteness:
    """How far one exposure has arrived.

    Parameters
    ----------
    exposure
        Its id.
    expected, arrived
        Detectors.
    unfinished, quarantined
        Messages about it that the platform will still do something about, and that somebody has to look at.
    """

    exposure: int
    expected: frozenset[int]
    arrived: frozenset[int]
    unfinished: int
    quarantined: int

    @property
    def missing(self) -> frozenset[int]:
        """Detectors that have not arrived."""
        return self.expected - self.arrived

    @property
    def complete(self) -> bool:
        """Whether all that is expected is here."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class DayCompleteness:
    """How far one day_obs has arrived.

    Parameters
    ----------
    day_obs
        Which.
    exposures
        Each exposure that was announced or is in the Butler, by id.
    last_received_at
        When the last message about it came, if any did.
    """

    day_obs: int
    exposures: tuple[ExposureCompleteness, ...]
    last_received_at: datetime | None

    @property
    def expected(self) -> int:
        """Raws that should be here."""
        return sum(len(exposure.expected) for exposure in self.exposures)

    @property
    def arrived(self) -> int:
        """Raws that are here."""
        return sum(len(exposure.arrived) for exposure in self.exposures)

    @property
    def incomplete(self) -> tuple[ExposureCompleteness, ...]:
        """Exposures of which something is missing."""
        return tuple(exposure for exposure in self.exposures if not exposure.complete)

    @property
    def unfinished(self) -> int:
        """Messages that the platform will still do something about."""
        return sum(exposure.unfinished for exposure in self.exposures)

    @property
    def complete(self) -> bool:
        """Whether there is something, and all of it is here."""
        return bool(self.exposures) and not self.incomplete and not self.unfinished

    def is_settled(self, now: datetime, quiescent_s: float) -> bool:
        """Whether it is complete, and nothing of it has come for so long."""
        quiet = self.last_received_at is None or (now - self.last_received_at).total_seconds() >= quiescent_s
        return self.complete and quiet


def day_completeness(
    butler: Butler,
    ledger: Ledger,
    settings: ArrivalSettings,
    day_obs: int,
    expected_detectors: Collection[int] | None = None,
) -> DayCompleteness:
    """Compare what was announced for a day_obs with what the Butler has.

    Parameters
    ----------
    butler, ledger, settings
        The site's.
    day_obs
        Which.
    expected_detectors
        What each exposure should have; by default the detectors that any exposure of this day_obs has.
    """
    instrument = Instrument.from_string(settings.instrument, butler.registry)
    arrived = _arrived(butler, instrument, day_obs)
    announced = {rows.exposure: rows for rows in ledger.exposures(day_obs)}
    expected = frozenset(expected_detectors if expected_detectors is not None else set().union(*arrived.values()))
    return DayCompleteness(
        day_obs,
        tuple(
            _exposure(number, expected, arrived.get(number, frozenset()), announced.get(number))
            for number in sorted(announced.keys() | arrived.keys())
        ),
        max((rows.last_received_at for rows in announced.values()), default=None),
    )


def _exposure(
    number: int, expected: frozenset[int], arrived: frozenset[int], rows: ExposureRows | None
) -> ExposureCompleteness:
    return ExposureCompleteness(
        exposure=number,
        expected=expected,
        arrived=arrived,
        unfinished=rows.unfinished if rows else 0,
        quarantined=rows.counts[State.QUARANTINED] if rows else 0,
    )


def _arrived(butler: Butler, instrument: Instrument, day_obs: int) -> dict[int, frozenset[int]]:
    """Detectors of the Butler's raws, by exposure."""
    name = instrument.raw_definition[0] if instrument.raw_definition else "raw"
    try:
        refs = butler.query_datasets(
            name,
            collections=instrument.makeDefaultRawIngestRunName(),
            instrument=instrument.getName(),
            day_obs=day_obs,
            limit=None,
            explain=False,
        )
    except (MissingDatasetTypeError, MissingCollectionError):
        return {}
    detectors: dict[int, set[int]] = {}
    for ref in refs:
        detectors.setdefault(cast(int, ref.dataId["exposure"]), set()).add(cast(int, ref.dataId["detector"]))
    return {exposure: frozenset(found) for exposure, found in detectors.items()}
