"""Whether a night is here: for each exposure, which detectors were expected and which have arrived.

Belongs here: comparing the ledger's announcements and the Butler's raws. Doesn't: the completeness of a release's steps
(`planning`), or deciding what to start (`sensors`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from arrivals.causes import cause_of
from arrivals.health import counted
from arrivals.instruments import raw_dataset_type, site_instrument
from arrivals.ledger import Ledger
from arrivals.outcomes import REMARKED
from arrivals.overview import Overview, Selection
from arrivals.records import ExposureRows
from arrivals.states import State
from resources.site import ArrivalSettings

if TYPE_CHECKING:
    from lsst.daf.butler import Butler
    from lsst.pipe.base import Instrument

NEVER_ANNOUNCED = "never announced"
"""Why a detector is missing of which no message tells, nor of a zip of its exposure."""

REMOVED = "ingested, and removed from the Butler since"
"""Why a detector is missing whose own message was ingested."""

NOT_IN_ZIP = "not in the zip of its exposure, or removed from the Butler since"
"""Why a detector is missing whose exposure's zip was ingested."""


class Readiness(StrEnum):
    """Whether a day_obs can be worked on."""

    EMPTY = "empty"
    """Nothing of it was announced, and nothing is here."""

    ARRIVING = "arriving"
    """Messages of it are unfinished, or came just now: wait."""

    INCOMPLETE = "incomplete"
    """It is quiet, and something is missing: somebody has to look."""

    READY = "ready"
    """It is quiet, and all of it is here."""


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
    known
        What is known of detectors that haven't arrived: of their own messages, or of their exposure's zip.
    """

    exposure: int
    expected: frozenset[int]
    arrived: frozenset[int]
    unfinished: int
    quarantined: int
    known: Mapping[int, str] = MappingProxyType({})

    @property
    def missing(self) -> frozenset[int]:
        """Detectors that have not arrived."""
        return self.expected - self.arrived

    @property
    def complete(self) -> bool:
        """Whether there is something, and all that is expected is here."""
        return bool(self.arrived) and not self.missing

    @property
    def why_missing(self) -> Mapping[str, tuple[int, ...]]:
        """The missing detectors by what is known of them."""
        found: dict[str, list[int]] = {}
        for detector in sorted(self.missing):
            found.setdefault(self.known.get(detector, NEVER_ANNOUNCED), []).append(detector)
        return {why: tuple(detectors) for why, detectors in found.items()}


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
    absent
        Science detectors of the instrument of which nothing came and nothing was announced all day. They aren't
        expected: a site may take a part of the camera only.
    skipped
        Sequence numbers between those of its exposures that no exposure has, as the first and the last of each gap. Not
        all that is taken is sent everywhere.
    unknown
        Detectors that were announced and that the instrument doesn't have.
    noted
        What was remarked of messages that were ingested, such as visits that the Butler has with another definition.
    """

    day_obs: int
    exposures: tuple[ExposureCompleteness, ...]
    last_received_at: datetime | None
    absent: frozenset[int] = frozenset()
    skipped: tuple[tuple[int, int], ...] = ()
    unknown: frozenset[int] = frozenset()
    noted: tuple[str, ...] = ()

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
    def remarks(self) -> tuple[str, ...]:
        """What somebody may wonder about although nothing that was announced is missing."""
        told = (
            ("no exposure has the detectors", ranges(self.absent)),
            ("no exposure has the sequence numbers", _said(self.skipped)),
            ("messages name detectors that the instrument doesn't have:", ranges(self.unknown)),
        )
        return (*(f"{what} {which}" for what, which in told if which), *self.noted)

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
        return self.readiness(now, quiescent_s) is Readiness.READY

    def readiness(self, now: datetime, quiescent_s: float) -> Readiness:
        """Whether it can be worked on.

        Parameters
        ----------
        now
            The time.
        quiescent_s
            How long nothing of it must have come.
        """
        if not self.exposures:
            return Readiness.EMPTY
        quiet = self.last_received_at is None or (now - self.last_received_at).total_seconds() >= quiescent_s
        if self.unfinished or not quiet:
            return Readiness.ARRIVING
        return Readiness.READY if self.complete else Readiness.INCOMPLETE


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
        What each exposure should have; by default the detectors that any exposure of this day_obs has, or that were
        announced for any and the instrument has.

    Raises
    ------
    resources.errors.SiteFault
        The instrument isn't to be had here.
    """
    instrument = site_instrument(settings, butler.registry)
    arrived = _arrived(butler, instrument, day_obs)
    announced = {rows.exposure: rows for rows in ledger.exposures(day_obs, instrument.getName())}
    purposes = _detectors(butler, instrument)
    absent: dict[int, dict[int, str]] = {}
    overview = Overview(ledger)
    for (exposure, detector), (state, reason) in overview.unarrived_detectors(day_obs, instrument.getName()).items():
        absent.setdefault(exposure, {})[detector] = _stands(state, reason)
    told = frozenset[int]().union(*absent.values())
    science = frozenset(detector for detector, purpose in purposes.items() if purpose == "SCIENCE")
    expected = frozenset(
        expected_detectors if expected_detectors is not None else (told & purposes.keys()).union(*arrived.values())
    )
    exposures = [
        _exposure(number, expected, arrived.get(number, frozenset()), announced.get(number), absent.get(number, {}))
        for number in sorted(announced.keys() | arrived.keys())
    ]
    return DayCompleteness(
        day_obs,
        tuple(_explained(exposures, overview)),
        max((rows.last_received_at for rows in announced.values()), default=None),
        absent=science - expected if expected else frozenset(),
        unknown=told - purposes.keys(),
        skipped=_skipped(butler, instrument, day_obs),
        noted=tuple(
            f"{counted(group.rows, 'message')} {group.example if group.reasons == 1 else group.cause}"
            for group in overview.causes({State.INGESTED}, Selection(day_obs=day_obs, reason=REMARKED))
        ),
    )


def _exposure(
    number: int,
    expected: frozenset[int],
    arrived: frozenset[int],
    rows: ExposureRows | None,
    known: Mapping[int, str],
) -> ExposureCompleteness:
    return ExposureCompleteness(
        exposure=number,
        expected=expected,
        arrived=arrived,
        unfinished=rows.unfinished if rows else 0,
        quarantined=rows.counts[State.QUARANTINED] if rows else 0,
        known=MappingProxyType({detector: why for detector, why in known.items() if detector not in arrived}),
    )


def _stands(state: State, reason: str) -> str:
    return f"{state}: {cause_of(reason)}" if reason else state


def _explained(exposures: Sequence[ExposureCompleteness], overview: Overview) -> Iterator[ExposureCompleteness]:
    """Add what is known of missing detectors of which no unfinished or refused message of their own tells."""
    missing = {each.exposure: each.missing - each.known.keys() for each in exposures}
    told = overview.came_otherwise([exposure for exposure, detectors in missing.items() if detectors])
    for each in exposures:
        known = dict(each.known)
        zipped = told.get((each.exposure, None))
        for detector in missing[each.exposure]:
            if (each.exposure, detector) in told:
                known[detector] = REMOVED
            elif zipped is not None:
                came = zipped[0] in {State.INGESTED, State.DUPLICATE}
                known[detector] = NOT_IN_ZIP if came else f"in a zip, {_stands(*zipped)}"
        yield replace(each, known=MappingProxyType(known))


def ranges(numbers: Collection[int]) -> str:
    """Write numbers shortly, such as ``0-8, 10, 12-13``.

    Parameters
    ----------
    numbers
        In any order.
    """
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return _said(runs)


def _said(runs: Iterable[tuple[int, int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _detectors(butler: Butler, instrument: Instrument) -> dict[int, str]:
    """The purpose of each detector."""
    records = butler.query_dimension_records("detector", instrument=instrument.getName(), explain=False)
    return {record.id: record.purpose for record in records}


def _skipped(butler: Butler, instrument: Instrument, day_obs: int) -> tuple[tuple[int, int], ...]:
    records = butler.query_dimension_records(
        "exposure", instrument=instrument.getName(), day_obs=day_obs, explain=False
    )
    numbers = sorted({record.seq_num for record in records if record.seq_num is not None})
    # Pairs, not numbers: one record that is wrong by millions must not fill the memory of every run of its day.
    return tuple((before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1)


def _arrived(butler: Butler, instrument: Instrument, day_obs: int) -> dict[int, frozenset[int]]:
    """Detectors of the Butler's raws, by exposure."""
    from lsst.daf.butler import MissingCollectionError, MissingDatasetTypeError

    detectors: dict[int, set[int]] = {}
    try:
        with butler.query() as query:
            # Data IDs, not datasets: a night has hundreds of thousands.
            of_run = query.join_dataset_search(
                raw_dataset_type(instrument), instrument.makeDefaultRawIngestRunName()
            ).where(instrument=instrument.getName(), day_obs=day_obs)
            for data_id in of_run.data_ids(["exposure", "detector"]):
                detectors.setdefault(cast(int, data_id["exposure"]), set()).add(cast(int, data_id["detector"]))
    except (MissingDatasetTypeError, MissingCollectionError):
        return {}
    return {exposure: frozenset(found) for exposure, found in detectors.items()}
