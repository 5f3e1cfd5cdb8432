"""From rows of the ledger to datasets and visits in the Butler: dimensions first, then raws and zips, visits, products.

Every row that is touched ends in a state with a reason; a bad one never holds up the others. Rows are settled after
their datasets and visits are in, and everything can be done twice: whoever dies when, the next call completes it.

Belongs here: the order of things, repeated announcements, and waking what waited. Doesn't: batches of rows and looking
at their files (`arrivals.batches`), or how each kind is ingested (`arrivals.dimensions`, `arrivals.raws`,
`arrivals.zips`, `arrivals.footprints`, `arrivals.visits`, `arrivals.products`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from lsst.daf.butler import Butler
from sqlalchemy.exc import DBAPIError

from arrivals import footprints
from arrivals.announcement import Kind
from arrivals.batches import READERS, Candidate, Found, Pending
from arrivals.dimensions import (
    LacksRegistered,
    LoadedDimensions,
    correct_dimensions,
    correction_number,
    dimension_key,
    lacking,
    later_corrections,
    load_dimensions,
)
from arrivals.exposures import KnownExposures
from arrivals.files import LostFolder, folder_key, is_away
from arrivals.garbage import only_new_objects_collected
from arrivals.ingest_report import IngestReport, Problems
from arrivals.instruments import site_instrument
from arrivals.ledger import Ledger
from arrivals.obs_base import ObsBaseRawIngest, ObsBaseVisits
from arrivals.outcomes import Outcome, ingest_in_bulk
from arrivals.products import ProductFile, ProductIngest
from arrivals.raws import HeaderRawIngest, HeaderReader, IngestedRaw, RawFile, RawIngest
from arrivals.records import LedgerRow
from arrivals.repetitions import Content, content_of, differ, repetition_of
from arrivals.states import State
from arrivals.tracing import removed
from arrivals.visits import OneToOneVisits, VisitConflict, VisitDefinition
from arrivals.zips import ingest_zip, read_members
from resources.databases import is_database_trouble, trouble_of
from resources.errors import Rejected
from resources.site import ArrivalSettings

_LOG = logging.getLogger(__name__)


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
    with ledger.exclusive("ingest", stopping=stopping), only_new_objects_collected():
        try:
            report = _Ingest(butler, ledger, settings, day_obs, undated, stopping).run()
        except DBAPIError as error:
            if trouble := trouble_of(error, "Butler"):
                raise trouble from error
            raise
    return replace(report, elapsed_s=time.monotonic() - began)


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
        self._pending = Pending(ledger, settings, partial(lacking, butler), day_obs, undated)
        self._paths = settings.paths
        self._stopping = stopping
        self._instrument = site_instrument(settings, butler.registry)
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
        self._failed = partial(Outcome.failed, patience_s=settings.max_waiting_s)
        self._outcomes: Counter[tuple[Kind, State]] = Counter()
        self._datasets = 0
        self._bytes = 0
        self._exposures: set[int] = set()
        self._defined: set[int] = set()
        self._conflicts: dict[int, VisitConflict] = {}
        self._problems = Problems()
        self._settling: Future[int] | None = None
        self._being_settled: dict[tuple[str, str], Content] = {}

    def run(self) -> IngestReport:
        self._ledger.wake({folder_key(rule) for rule in self._paths if not is_away(rule)})
        with (
            ThreadPoolExecutor(READERS, "arrivals-reader") as readers,
            ThreadPoolExecutor(1, "arrivals-settler") as settler,
        ):
            for kind, ingest in (
                (Kind.DIMENSIONS, self._ingest_dimensions),
                (Kind.RAW, self._ingest_raws),
                (Kind.ZIP, self._ingest_zips),
                (Kind.PRODUCT, self._ingest_products),
            ):
                with closing(self._pending.batches(kind, readers, self._stopping)) as batches:
                    for rows, examined in batches:
                        _tell_of_lost_folders(examined)
                        self._settle(kind, self._each_file_once(rows, examined, ingest), settler)
                # Rows of the next kind may be rows of this one that wait, and then be woken.
                self._await_settled()
        return IngestReport(
            outcomes=MappingProxyType(dict(self._outcomes)),
            datasets=self._datasets,
            bytes=self._bytes,
            exposures=frozenset(self._exposures),
            visits=frozenset(self._defined),
            conflicts=tuple(self._conflicts.values()),
            problems=self._problems.all(),
        )

    # ---- what all kinds have in common

    def _each_file_once(
        self,
        rows: Sequence[LedgerRow],
        examined: Sequence[Found],
        ingest: Callable[[Sequence[Candidate]], Iterable[Outcome]],
    ) -> list[Outcome]:
        """Tell repeated announcements, and ingest the files that are as announced."""
        before = {**self._ledger.ingested_contents({(row.scope, row.name) for row in rows}), **self._being_settled}
        gone = self._removed(rows, before)
        outcomes: list[Outcome] = []
        candidates: list[Candidate] = []
        firsts: dict[str, LedgerRow] = {}
        repetitions: list[LedgerRow] = []
        rivals: list[tuple[LedgerRow, Found]] = []
        for row, found in zip(rows, examined, strict=True):
            content = before.get((row.scope, row.name))
            first = firsts.get(row.did)
            if content is not None and row.row_id not in gone:
                outcomes.append(repetition_of(row, content))
            elif first is not None:
                if row.url != first.url or differ(content_of(first), content_of(row)):
                    rivals.append((row, found))
                else:
                    repetitions.append(row)
            else:
                firsts[row.did] = row
                if isinstance(found, Candidate):
                    candidates.append(found)
                else:
                    outcomes.append(self._failed(row, found))
        outcomes += self._each_by_itself_if_need_be(candidates, ingest)
        of_firsts = {outcome.row.row_id: outcome for outcome in outcomes}
        outcomes += [of_firsts[firsts[row.did].row_id].for_repetition(row) for row in repetitions]
        # Of one file announced in two ways, the first counts, unless it is the one that was wrong.
        beaten = [pair for pair in rivals if of_firsts[firsts[pair[0].did].row_id].state is State.INGESTED]
        outcomes += [repetition_of(row, content_of(firsts[row.did])) for row, _ in beaten]
        others = [pair for pair in rivals if pair not in beaten]
        if others:
            outcomes += self._each_file_once([row for row, _ in others], [found for _, found in others], ingest)
        return outcomes

    def _removed(self, rows: Sequence[LedgerRow], before: Mapping[tuple[str, str], Content]) -> Collection[int]:
        """Rows that would be duplicates, were their datasets not removed from the Butler since: those come in anew."""
        known = ((row, before.get((row.scope, row.name))) for row in rows)
        repeated = [row for row, content in known if content is not None and not differ(content, content_of(row))]
        return removed(self._butler, self._instrument, repeated) if repeated else ()

    def _each_by_itself_if_need_be(
        self, candidates: Sequence[Candidate], ingest: Callable[[Sequence[Candidate]], Iterable[Outcome]]
    ) -> list[Outcome]:
        """Ingest at once; where that raises what nobody foresaw, find the files that did it."""
        outcomes: list[Outcome] = []
        unforeseen = ingest_in_bulk(candidates, lambda some: outcomes.extend(ingest(some)))
        for index, error in unforeseen.items():
            if is_database_trouble(error):
                raise error
            outcomes.append(self._failed(candidates[index].row, error))
        if unforeseen:  # the ledger has the reasons, but not where in the code
            _LOG.error("%d files met an unforeseen error", len(unforeseen), exc_info=unforeseen[min(unforeseen)])
        return outcomes

    def _settle(self, kind: Kind, outcomes: Sequence[Outcome], settler: Executor) -> None:
        """Have rows settled while the next batch is ingested, which is told what of them is in already."""
        now = datetime.now(UTC)
        self._await_settled()
        settlements = [outcome.to_settlement(now) for outcome in outcomes]
        self._settling = settler.submit(self._ledger.settle, settlements, now=now)
        ingested = [outcome.row for outcome in outcomes if outcome.state is State.INGESTED]
        self._being_settled = {(row.scope, row.name): content_of(row) for row in ingested}
        for outcome in outcomes:
            self._outcomes[kind, outcome.state] += 1
            self._datasets += outcome.datasets
            if outcome.state is State.INGESTED:
                self._bytes += outcome.row.bytes or 0
            elif outcome.state is not State.DUPLICATE:
                self._problems.add(outcome.state, outcome.row.did, outcome.reason)

    def _await_settled(self) -> None:
        if self._settling is not None:
            self._settling.result()
            self._settling = None
            self._being_settled = {}

    def _wake(self, arrived: Collection[str]) -> None:
        """Wake what waits for these, also if it was found to wait in the batch before."""
        self._await_settled()
        self._ledger.wake(arrived)

    # ---- kind by kind

    def _ingest_dimensions(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        corrections = sorted(
            (candidate for candidate in candidates if correction_number(candidate.row.name)),
            key=lambda candidate: correction_number(candidate.row.name),
        )
        originals = [candidate for candidate in candidates if not correction_number(candidate.row.name)]
        loaded = load_dimensions(self._butler, [candidate.arrived for candidate in originals])
        outcomes = [
            self._refused(candidate.row, found) if isinstance(found, Exception) else _loaded(candidate.row, found)
            for candidate, found in zip(originals, loaded, strict=True)
        ]
        self._wake({key for found in loaded if isinstance(found, LoadedDimensions) for key in found.keys})
        return outcomes + [self._correct(candidate) for candidate in corrections]

    def _refused(self, row: LedgerRow, error: Exception) -> Outcome:
        """What becomes of a dimensions file that isn't in; one may bring the instrument, so that is asked last."""
        if isinstance(error, LacksRegistered):
            self._known.require_instrument()
        return self._failed(row, error)

    def _correct(self, candidate: Candidate) -> Outcome:
        """Apply a correction, unless a later one is in: corrections may come in any order too."""
        row = candidate.row
        later = self._ledger.ingested_contents({(row.scope, name) for name in later_corrections(row.name)})
        try:
            if later:
                [loaded] = load_dimensions(self._butler, [candidate.arrived])
                if isinstance(loaded, Exception):
                    return self._refused(row, loaded)
                newest = max((name for _, name in later), key=correction_number)
                return _loaded(row, loaded, f"changed nothing: {newest} is later and came before")
            loaded = correct_dimensions(self._butler, candidate.arrived)
            self._known.forget(loaded.exposures)
            raws, unreadable = footprints.in_butler(
                self._butler, self._instrument, loaded.exposures, self._visits.needs_footprints
            )
        except Exception as error:  # the file is not ours: whatever it does to the Butler is this row's trouble
            return self._refused(row, error)
        corrected = self._visits.correct(loaded.exposures)
        self._conflicts |= {conflict.visit: conflict for conflict in corrected.conflicts}
        conflicts = self._define_visits(raws)  # an exposure may see the sky only now
        self._wake(loaded.keys)
        return _loaded(row, loaded, unreadable, *{*map(str, corrected.conflicts), *conflicts.values()})

    def _ingest_raws(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        if self._raws is None:
            self._raws = (
                HeaderRawIngest(self._butler, self._instrument, self._known, self._visits.needs_footprints)
                if self._reads_headers
                else ObsBaseRawIngest(self._butler, self._instrument, self._known)
            )
        results = self._raws.ingest([RawFile(candidate.arrived, candidate.sidecar) for candidate in candidates])
        remarks = self._define_visits([result for result in results if isinstance(result, IngestedRaw)])
        return [
            Outcome.ingested(
                candidate.row,
                1,
                remarks=(result.remark, remarks.get(result.exposure, "")),
                day_obs=result.day_obs,
                exposure=result.exposure,
            )
            if isinstance(result, IngestedRaw)
            else self._failed(candidate.row, result)
            for candidate, result in zip(candidates, results, strict=True)
        ]

    def _ingest_zips(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        ingested: dict[int, list[IngestedRaw]] = {}
        unreadable: dict[int, str] = {}
        failed: dict[int, Exception] = {}
        for index, candidate in enumerate(candidates):
            file = candidate.arrived.uri
            try:
                members = read_members(self._butler, file)
                raws = ingest_zip(self._butler, file, members, self._instrument, self._known)
                ingested[index], unreadable[index] = footprints.in_zip(
                    file, raws, members, self._instrument, self._visits.needs_footprints
                )
            except Exception as error:  # the file is not ours: whatever it does to us is this row's trouble
                failed[index] = error
        remarks = self._define_visits([raw for raws in ingested.values() for raw in raws])
        outcomes = [self._failed(candidates[index].row, error) for index, error in failed.items()]
        for index, raws in ingested.items():
            first = raws[0]
            noted = (unreadable[index], *(remarks.get(exposure, "") for exposure in {raw.exposure for raw in raws}))
            row = candidates[index].row
            outcomes.append(
                Outcome.ingested(row, len(raws), remarks=noted, day_obs=first.day_obs, exposure=first.exposure)
            )
        return outcomes

    def _ingest_products(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        outcomes = []
        products: list[tuple[LedgerRow, ProductFile]] = []
        for candidate in candidates:
            if candidate.sidecar is None:
                outcomes.append(self._failed(candidate.row, Rejected("has no sidecar", candidate.row.did)))
            else:
                products.append((candidate.row, ProductFile(candidate.arrived.uri, candidate.sidecar)))
        errors = self._products.ingest([product for _, product in products])
        for (row, _), error in zip(products, errors, strict=True):
            outcomes.append(Outcome.ingested(row, 1) if error is None else self._failed(row, error))
        return outcomes

    def _define_visits(self, raws: Sequence[IngestedRaw]) -> Mapping[int, str]:
        """Define visits, wake what waited for them or their exposures, and return conflicts by exposure."""
        exposures = {raw.exposure for raw in raws}
        defined = self._visits.define(raws)
        self._exposures |= exposures
        self._defined |= defined.visits
        self._conflicts |= {conflict.visit: conflict for conflict in defined.conflicts}
        came = {("exposure", exposure) for exposure in exposures} | {("visit", visit) for visit in defined.visits}
        for record in filter(None, map(self._known.record, exposures)):
            came |= {("day_obs", record.day_obs), ("group", record.group)}
        self._wake({dimension_key({"instrument": self._name, name: value}) for name, value in came})
        return {conflict.visit: str(conflict) for conflict in defined.conflicts}


def _tell_of_lost_folders(examined: Iterable[Found]) -> None:
    for what, count in Counter(str(found) for found in examined if isinstance(found, LostFolder)).items():
        _LOG.warning("%d files wait: %s", count, what)


def _loaded(row: LedgerRow, loaded: LoadedDimensions, *remarks: str) -> Outcome:
    exposure, day_obs = next(iter(loaded.exposures.items())) if len(loaded.exposures) == 1 else (None, None)
    return Outcome.ingested(row, 0, remarks=(*remarks, loaded.remark), day_obs=day_obs, exposure=exposure)
