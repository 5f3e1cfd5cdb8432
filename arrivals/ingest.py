"""From rows of the ledger to datasets and visits in the Butler: dimensions first, then raws and zips, visits, products.

Every row that is touched ends in a state with a reason; a bad one never holds up the others. Rows are settled after
their datasets and visits are in, and everything can be done twice: whoever dies when, the next call completes it.

Belongs here: the order of things, batches, repeated announcements, and waking what waited. Doesn't: how each kind is
ingested (`arrivals.dimensions`, `arrivals.raws`, `arrivals.zips`, `arrivals.visits`, `arrivals.products`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from lsst.daf.butler import Butler
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath
from sqlalchemy.exc import DBAPIError

from arrivals.announcement import Kind, Sidecar
from arrivals.dimensions import LoadedDimensions, dimension_key, is_correction, load_dimensions
from arrivals.files import locate, verify
from arrivals.ledger import Ledger
from arrivals.message import parse_sidecar
from arrivals.obs_base import ObsBaseRawIngest, ObsBaseVisits
from arrivals.outcomes import Outcome, is_database_trouble
from arrivals.products import ProductFile, ProductIngest
from arrivals.raws import (
    HeaderRawIngest,
    HeaderReader,
    IngestedRaw,
    KnownExposures,
    RawFile,
    RawIngest,
    header_reader,
)
from arrivals.records import LedgerRow
from arrivals.states import State
from arrivals.visits import OneToOneVisits, VisitConflict, VisitDefinition
from arrivals.zips import ingest_zip, member_observations
from resources.errors import Rejected, Retriable, SiteFault
from resources.site import ArrivalSettings

MAX_PROBLEMS = 50
"""So many problems are listed in a report; all of them are in the ledger."""

_MAX_BATCH = {Kind.DIMENSIONS: 500, Kind.ZIP: 10}
"""Kinds ingested file by file: rows are settled after so many, so that little is done again after a crash."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was not ingested, and why."""

    did: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingest did.

    Parameters
    ----------
    outcomes
        Rows by kind and new state.
    datasets, bytes
        Datasets that are in the Butler because of it, and the size of their files.
    exposures, visits
        Exposures of which raws came in, and visits that are defined because of them.
    conflicts
        Visits that the Butler has with another definition.
    problems
        What waits or was quarantined, the first of it.
    elapsed_s
        How long it took.
    """

    outcomes: Mapping[tuple[Kind, State], int] = MappingProxyType({})
    datasets: int = 0
    bytes: int = 0
    exposures: frozenset[int] = frozenset()
    visits: frozenset[int] = frozenset()
    conflicts: tuple[VisitConflict, ...] = ()
    problems: tuple[Problem, ...] = ()
    elapsed_s: float = 0.0

    def count(self, state: State) -> int:
        """Rows that reached a state, of all kinds."""
        return sum(count for (_, reached), count in self.outcomes.items() if reached is state)


def ingest_pending(
    butler: Butler,
    ledger: Ledger,
    settings: ArrivalSettings,
    day_obs: int | None = None,
    *,
    undated: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> IngestReport:
    """Ingest what the ledger has received and what is due to be tried again.

    Parameters
    ----------
    butler
        A writeable Butler.
    ledger
        The site's ledger. One process ingests at a time; others wait for it.
    settings
        The site profile's.
    day_obs
        Only this day_obs; by default everything.
    undated
        Only what belongs to no day_obs: calibrations, catalogues.
    stopping
        Asked between batches whether to stop early.

    Returns
    -------
    report
        What was done. Troubles of single rows are in it, and in the ledger, not raised.

    Raises
    ------
    resources.errors.SiteFault
        The site is at fault, such as an instrument that isn't registered; rows stay as they are.
    resources.errors.Retriable
        Another process was ingesting all the time, or a database is gone.
    """
    began = time.monotonic()
    with ledger.exclusive("ingest"):
        try:
            report = _Ingest(butler, ledger, settings, day_obs, undated, stopping).run()
        except DBAPIError as error:
            if not is_database_trouble(error):
                raise
            raise Retriable(f"database trouble: {error.orig}", "butler or ledger", "try again later") from error
    return replace(report, elapsed_s=time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row whose file is here and is the announced one."""

    row: LedgerRow
    file: ResourcePath

    @property
    def sidecar(self) -> Sidecar | None:
        return parse_sidecar(self.row.sidecar)


class _Ingest:
    def __init__(
        self,
        butler: Butler,
        ledger: Ledger,
        settings: ArrivalSettings,
        day_obs: int | None,
        undated: bool,
        stopping: Callable[[], bool],
    ) -> None:
        self._butler = butler
        self._ledger = ledger
        self._settings = settings
        self._day_obs = day_obs
        self._undated = undated
        self._stopping = stopping
        try:
            self._instrument = Instrument.from_string(settings.instrument, butler.registry)
        except (RuntimeError, TypeError) as error:
            raise SiteFault(str(error), "arrivals.instrument", "name the class by its import path") from error
        self._name: str = self._instrument.getName()
        self._known = KnownExposures(butler, self._name)
        self._reads_headers = isinstance(self._instrument, HeaderReader)
        self._visits: VisitDefinition = (
            OneToOneVisits(butler, self._name, self._known)
            if self._reads_headers
            else ObsBaseVisits(butler, self._instrument)
        )
        self._raws: RawIngest | None = None
        self._products = ProductIngest(
            butler,
            self._name,
            register_dataset_types=settings.register_dataset_types,
            calibration_collection=settings.calibration_collection,
        )
        self._outcomes: Counter[tuple[Kind, State]] = Counter()
        self._datasets = 0
        self._bytes = 0
        self._exposures: set[int] = set()
        self._defined: set[int] = set()
        self._conflicts: dict[int, VisitConflict] = {}
        self._problems: list[Problem] = []

    def run(self) -> IngestReport:
        for kind, ingest in (
            (Kind.DIMENSIONS, self._ingest_dimensions),
            (Kind.RAW, self._ingest_raws),
            (Kind.ZIP, self._ingest_zips),
            (Kind.PRODUCT, self._ingest_products),
        ):
            after = 0
            limit = min(self._settings.ingest_batch, _MAX_BATCH.get(kind, self._settings.ingest_batch))
            while not self._stopping():
                rows = self._ledger.pending(
                    {kind}, day_obs=self._day_obs, undated=self._undated, limit=limit, after=after
                )
                if not rows:
                    break
                after = rows[-1].row_id
                self._settle(kind, self._each_file_once(rows, ingest))
        return IngestReport(
            outcomes=MappingProxyType(dict(self._outcomes)),
            datasets=self._datasets,
            bytes=self._bytes,
            exposures=frozenset(self._exposures),
            visits=frozenset(self._defined),
            conflicts=tuple(self._conflicts.values()),
            problems=tuple(self._problems),
        )

    # ---- what all kinds have in common

    def _each_file_once(
        self, rows: Sequence[LedgerRow], ingest: Callable[[Sequence[_Candidate]], Iterable[Outcome]]
    ) -> list[Outcome]:
        """Settle repeated announcements, look at the files, and ingest those that are as announced."""
        before = self._ledger.ingested_contents({(row.scope, row.name) for row in rows})
        outcomes: list[Outcome] = []
        candidates: list[_Candidate] = []
        firsts: dict[str, LedgerRow] = {}
        repetitions: list[LedgerRow] = []
        for row in rows:
            content = before.get((row.scope, row.name))
            first = firsts.get(row.did)
            if content is not None:
                outcomes.append(_repetition_of(row, content))
            elif first is not None and _content(first) != _content(row):
                outcomes.append(Outcome.quarantined(row, _other_content(_content(first), _content(row))))
            elif first is not None:
                repetitions.append(row)
            else:
                firsts[row.did] = row
                try:
                    candidates.append(self._candidate(row))
                except Exception as error:  # whatever it is, it is this row's, and the others go on
                    outcomes.append(Outcome.failed(row, error))
        if candidates:
            outcomes += ingest(candidates)
        by_did = {outcome.row.did: outcome for outcome in outcomes if outcome.row.did in firsts}
        return outcomes + [by_did[row.did].for_repetition(row) for row in repetitions]

    def _candidate(self, row: LedgerRow) -> _Candidate:
        file = locate(row.url, self._settings.paths)
        verify(file, size=row.bytes, adler32=row.adler32, policy=self._settings.verify, did=row.did)
        return _Candidate(row, file)

    def _settle(self, kind: Kind, outcomes: Sequence[Outcome]) -> None:
        now = datetime.now(UTC)
        self._ledger.settle([outcome.to_settlement(now) for outcome in outcomes], now=now)
        for outcome in outcomes:
            self._outcomes[kind, outcome.state] += 1
            self._datasets += outcome.datasets
            if outcome.state is State.INGESTED:
                self._bytes += outcome.row.bytes or 0
            elif outcome.state is not State.DUPLICATE and len(self._problems) < MAX_PROBLEMS:
                self._problems.append(Problem(outcome.row.did, outcome.state, outcome.reason))

    # ---- kind by kind

    def _ingest_dimensions(self, candidates: Sequence[_Candidate]) -> list[Outcome]:
        outcomes = []
        woken: set[str] = set()
        for candidate in candidates:
            try:
                loaded = load_dimensions(self._butler, candidate.file, correction=is_correction(candidate.row.name))
            except Exception as error:  # the file is not ours: whatever it does to the Butler is this row's trouble
                outcomes.append(Outcome.failed(candidate.row, error))
                continue
            outcomes.append(_loaded(candidate.row, loaded))
            woken |= loaded.keys
        self._ledger.wake(woken)
        return outcomes

    def _ingest_raws(self, candidates: Sequence[_Candidate]) -> list[Outcome]:
        if self._raws is None:
            way = HeaderRawIngest if self._reads_headers else ObsBaseRawIngest
            self._raws = way(self._butler, self._instrument, self._known)
        results = self._raws.ingest([RawFile(candidate.file, candidate.sidecar) for candidate in candidates])
        noted = self._define_visits(result for result in results if isinstance(result, IngestedRaw))
        return [
            replace(
                Outcome.ingested(candidate.row, 1, day_obs=result.day_obs, exposure=result.exposure),
                reason=noted.get(result.exposure, ""),
            )
            if isinstance(result, IngestedRaw)
            else Outcome.failed(candidate.row, result)
            for candidate, result in zip(candidates, results, strict=True)
        ]

    def _ingest_zips(self, candidates: Sequence[_Candidate]) -> list[Outcome]:
        outcomes = []
        for candidate in candidates:
            try:
                raws = self._with_footprints(
                    candidate.file, ingest_zip(self._butler, candidate.file, self._name, self._known)
                )
            except Exception as error:  # the file is not ours: whatever it does to the Butler is this row's trouble
                outcomes.append(Outcome.failed(candidate.row, error))
                continue
            noted = self._define_visits(raws)
            first = raws[0]
            outcome = Outcome.ingested(candidate.row, len(raws), day_obs=first.day_obs, exposure=first.exposure)
            outcomes.append(replace(outcome, reason=noted.get(first.exposure, "")))
        return outcomes

    def _with_footprints(self, file: ResourcePath, raws: list[IngestedRaw]) -> list[IngestedRaw]:
        """Read those members' headers that the definition of visits asks for."""
        wanted = {(r.exposure, r.detector) for r in raws if self._visits.needs_footprint(r.exposure, r.detector)}
        if not wanted:
            return raws
        observations = member_observations(self._butler, file, header_reader(self._instrument), wanted)
        return [replace(raw, observation=observations.get((raw.exposure, raw.detector))) for raw in raws]

    def _ingest_products(self, candidates: Sequence[_Candidate]) -> list[Outcome]:
        outcomes = []
        products: list[tuple[LedgerRow, ProductFile]] = []
        for candidate in candidates:
            sidecar = candidate.sidecar
            if sidecar is None:
                outcomes.append(Outcome.failed(candidate.row, Rejected("has no sidecar", candidate.row.did)))
            else:
                products.append((candidate.row, ProductFile(candidate.file, sidecar)))
        errors = self._products.ingest([product for _, product in products])
        for (row, _), error in zip(products, errors, strict=True):
            outcomes.append(Outcome.ingested(row, 1) if error is None else Outcome.failed(row, error))
        return outcomes

    def _define_visits(self, raws: Iterable[IngestedRaw]) -> Mapping[int, str]:
        """Define visits, wake what waited for them or their exposures, and return conflicts by exposure."""
        raws = list(raws)
        exposures = {raw.exposure for raw in raws}
        defined = self._visits.define(raws)
        self._exposures |= exposures
        self._defined |= defined.visits
        self._conflicts |= {conflict.visit: conflict for conflict in defined.conflicts}
        keys = {dimension_key({"instrument": self._name, "exposure": exposure}) for exposure in exposures}
        keys |= {dimension_key({"instrument": self._name, "visit": visit}) for visit in defined.visits}
        self._ledger.wake(keys)
        return {conflict.visit: f"ingested, but {conflict}" for conflict in defined.conflicts}


def _loaded(row: LedgerRow, loaded: LoadedDimensions) -> Outcome:
    exposure, day_obs = next(iter(loaded.exposures.items())) if len(loaded.exposures) == 1 else (None, None)
    return Outcome.ingested(row, 0, day_obs=day_obs, exposure=exposure)


def _content(row: LedgerRow) -> tuple[int | None, str]:
    return row.bytes, row.adler32 or ""


def _repetition_of(row: LedgerRow, content: tuple[int | None, str]) -> Outcome:
    if content == _content(row):
        return Outcome(row, State.DUPLICATE, "announced and ingested before")
    return Outcome.quarantined(row, _other_content(content, _content(row)))


def _other_content(first: tuple[int | None, str], second: tuple[int | None, str]) -> str:
    (size, adler32), (other_size, other_adler32) = first, second
    return (
        f"the same DID was announced with other content before: {size} bytes, adler32 {adler32 or 'unknown'}, "
        f"now {other_size} bytes, adler32 {other_adler32 or 'unknown'}"
    )
