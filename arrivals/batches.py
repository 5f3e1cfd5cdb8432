"""Pending rows, batch by batch, with what was found of their files: one batch is read while another is ingested.

Belongs here: the size of batches, the threads that read, which rows' files are looked at, and looking at one. Doesn't:
what a file should be (`arrivals.files`), or what becomes of it (`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import batched
from threading import Event

from arrivals.announcement import Kind, Sidecar
from arrivals.files import Arrived, locate, lost_folder, verify
from arrivals.ledger import Ledger
from arrivals.outcomes import is_retriable
from arrivals.records import LedgerRow
from resources.errors import Waiting
from resources.site import ArrivalSettings

READERS = 4
"""Threads that look at files, at most."""

_BYTES_A_READER = 64 * 2**20
"""So many bytes of files are worth a thread: of small ones, threads would mostly wait for each other."""

_MAX_BATCH = {Kind.DIMENSIONS: 500, Kind.ZIP: 10}
"""Kinds ingested file by file: rows are settled after so many, so that little is done again after a crash."""

_FITS = (".fits", ".fits.fz")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row whose file is here and is the announced one."""

    row: LedgerRow
    arrived: Arrived
    sidecar: Sidecar | None


Found = Candidate | Exception
"""What was found of a row's file: that it is the announced one, or what is wrong with it."""

_Reading = Sequence[Future[list[Found]]]
"""What is being found of the files of rows, in their order."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is to be ingested.

    Parameters
    ----------
    ledger
        The site's.
    settings
        Paths, policy and batches.
    lacking
        Of the keys by which rows wait, those whose dimension records the Butler lacks.
    day_obs
        Only this day_obs; by default everything.
    undated
        Only what belongs to no day_obs.
    """

    ledger: Ledger
    settings: ArrivalSettings
    lacking: Callable[[Collection[str]], Collection[str]]
    day_obs: int | None = None
    undated: bool = False

    def batches(
        self, kind: Kind, readers: Executor, stopping: Callable[[], bool]
    ) -> Generator[tuple[Sequence[LedgerRow], Sequence[Found]]]:
        """Batches of rows and of what was found; while one is ingested, the next is asked for and its files read.

        Parameters
        ----------
        kind
            Of the rows.
        readers
            Threads that look at files.
        stopping
            Asked before each batch whether to stop early; then, and where the batches are closed, files that are still
            to be looked at are left alone.
        """
        if stopping():
            return
        given_up = Event()
        try:
            rows, reading = self._next(kind, readers, given_up, 0)
            while rows:
                following = readers.submit(self._next, kind, readers, given_up, rows[-1].row_id)
                yield rows, self._found(rows, reading, readers, given_up)
                if stopping():
                    return
                rows, reading = following.result()
        finally:
            given_up.set()

    def _next(self, kind: Kind, readers: Executor, given_up: Event, after: int) -> tuple[Sequence[LedgerRow], _Reading]:
        if given_up.is_set():
            return [], []
        limit = min(self.settings.ingest_batch, _MAX_BATCH.get(kind, self.settings.ingest_batch))
        rows = self.ledger.pending({kind}, day_obs=self.day_obs, undated=self.undated, limit=limit, after=after)
        return rows, self._read([row for row in rows if not _is_asleep(row)], readers, given_up)

    def _found(
        self, rows: Sequence[LedgerRow], reading: _Reading, readers: Executor, given_up: Event
    ) -> Sequence[Found]:
        """What was found, in the order of rows: that it still waits, of each that does, without a look at its file."""
        awake = [found for some in reading for found in some.result()]
        if len(awake) == len(rows):
            return awake
        asleep = {row.row_id: row.waits_for for row in rows if row.waits_for and _is_asleep(row)}
        lacking = self.lacking(set(asleep.values()))
        found: dict[int, Found] = {
            row_id: Waiting("waits for its dimensions", key) for row_id, key in asleep.items() if key in lacking
        }
        others = [row for row in rows if row.row_id in asleep and row.row_id not in found]
        woken = (each for some in self._read(others, readers, given_up) for each in some.result())
        found |= zip((row.row_id for row in others), woken, strict=True)
        found |= zip((row.row_id for row in rows if row.row_id not in asleep), awake, strict=True)
        return [found[row.row_id] for row in rows]

    def _read(self, rows: Sequence[LedgerRow], readers: Executor, given_up: Event) -> _Reading:
        threads = min(READERS, 1 + sum(row.bytes or 0 for row in rows) // _BYTES_A_READER)
        share = -(-len(rows) // threads) or 1
        return [readers.submit(self._examine, some, given_up) for some in batched(rows, share)]

    def _examine(self, rows: Sequence[LedgerRow], given_up: Event) -> list[Found]:
        """Look at the files, and at nothing else: this runs beside everything."""
        examined: list[Found] = []
        for row in rows:
            if given_up.is_set():
                break
            try:
                arrived = verify(
                    locate(row.url, self.settings.paths),
                    size=row.bytes,
                    adler32=row.adler32,
                    policy=self.settings.verify,
                    did=row.did,
                    is_fits=row.kind is Kind.RAW and row.name.endswith(_FITS),
                )
                examined.append(Candidate(row, arrived, Sidecar.from_json(row.sidecar) if row.sidecar else None))
            except Exception as error:  # whatever it is, it is this row's, and the others go on
                lost = lost_folder(row.url, self.settings.paths) if is_retriable(error) else None
                examined.append(lost or error)
        return examined


def _is_asleep(row: LedgerRow) -> bool:
    """Whether a row is due and nothing has woken it: dimensions themselves may wait for others of their own batch."""
    return row.waits_for is not None and row.kind is not Kind.DIMENSIONS
