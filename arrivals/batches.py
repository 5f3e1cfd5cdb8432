"""Pending rows, batch by batch, with what was found of their files: one batch is read while another is ingested.

Belongs here: the size of batches, the threads that read, and looking at one row's file. Doesn't: what a file should be
(`arrivals.files`), or what becomes of it (`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import batched
from threading import Event

from arrivals.announcement import Kind, Sidecar
from arrivals.files import Arrived, locate, lost_folder, verify
from arrivals.ledger import Ledger
from arrivals.outcomes import is_retriable
from arrivals.records import LedgerRow
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


@dataclass(frozen=True, slots=True)
class Pending:
    """What is to be ingested.

    Parameters
    ----------
    ledger
        The site's.
    settings
        Paths, policy and batches.
    day_obs
        Only this day_obs; by default everything.
    undated
        Only what belongs to no day_obs.
    """

    ledger: Ledger
    settings: ArrivalSettings
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
            rows, examined = self._next(kind, readers, given_up, 0)
            while rows:
                following = readers.submit(self._next, kind, readers, given_up, rows[-1].row_id)
                yield rows, [found for some in examined for found in some.result()]
                if stopping():
                    return
                rows, examined = following.result()
        finally:
            given_up.set()

    def _next(
        self, kind: Kind, readers: Executor, given_up: Event, after: int
    ) -> tuple[Sequence[LedgerRow], Sequence[Future[list[Found]]]]:
        if given_up.is_set():
            return [], []
        limit = min(self.settings.ingest_batch, _MAX_BATCH.get(kind, self.settings.ingest_batch))
        rows = self.ledger.pending({kind}, day_obs=self.day_obs, undated=self.undated, limit=limit, after=after)
        threads = min(READERS, 1 + sum(row.bytes or 0 for row in rows) // _BYTES_A_READER)
        share = -(-len(rows) // threads) or 1
        return rows, [readers.submit(self._examine, some, given_up) for some in batched(rows, share)]

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
