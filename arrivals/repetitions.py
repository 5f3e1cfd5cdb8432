"""Files that are announced more than once: the same content again, or another under the same DID.

Belongs here: comparing announcements. Doesn't: what was ingested before (`arrivals.ledger`), or which of two is tried
first (`arrivals.ingest`).
"""

from __future__ import annotations

from arrivals.outcomes import Outcome
from arrivals.records import LedgerRow
from arrivals.states import State

type Content = tuple[int | None, str]
"""Size and adler32, as far as they were announced."""


def content_of(row: LedgerRow) -> Content:
    """What a row announces."""
    return row.bytes, row.adler32 or ""


def differ(first: Content, second: Content) -> bool:
    """Whether two announcements can't be of the same file; what wasn't announced differs from nothing."""
    (size, adler32), (other_size, other_adler32) = first, second
    sizes_differ = size is not None and other_size is not None and size != other_size
    return sizes_differ or bool(adler32 and other_adler32 and adler32 != other_adler32)


def repetition_of(row: LedgerRow, content: Content) -> Outcome:
    """What becomes of the announcement of a DID whose content was ingested before: nothing, or it is another's."""
    if not differ(content, content_of(row)):
        return Outcome(row, State.DUPLICATE, "announced and ingested before")
    (size, adler32), (other_size, other_adler32) = content, content_of(row)
    return Outcome.quarantined(
        row,
        f"the same DID was announced with other content before: {size} bytes, adler32 {adler32 or 'unknown'}, "
        f"now {other_size} bytes, adler32 {other_adler32 or 'unknown'}",
    )
