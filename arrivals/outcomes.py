"""What became of a row in one attempt: errors turned into states, and one bad member found in a batch.

Belongs here: the decision from an error to a state with a reason, and the bisection that isolates a bad member.
Doesn't: raising the errors, or storing the states.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from sqlalchemy.exc import DBAPIError

from arrivals.records import LedgerRow, Settlement
from arrivals.states import State
from resources.databases import is_database_trouble, trouble_of
from resources.errors import OperatorError, Retriable, SiteFault, Waiting

FIRST_RETRY_S = 20.0
"""The first retry comes after about this long, and each next one after twice as long, up to `LOOK_AGAIN_S`."""

LOOK_AGAIN_S = 900.0
"""What waits is looked at after about this long even if nothing woke it: others use the Butler too."""

CLOCK_TOLERANCE = timedelta(hours=1)
"""By so much a message's time may be ahead of the time at which it was received."""

REMARKED = "ingested, but "
"""So begins the reason of what was ingested and of which an operator should know something nevertheless."""

_REASON_CHARACTERS = 600

_PASSING_REFUSALS = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class AlreadyThere(OperatorError):
    """What was announced is in the Butler, from elsewhere; there is nothing to do about it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row.

    Parameters
    ----------
    row
        Which.
    state, reason, waits_for, retry_s
        Its next state, why, what would wake it, and after how many seconds it is tried again.
    datasets
        How many datasets are in the Butler because of it.
    day_obs, exposure
        What was learned about it.
    """

    row: LedgerRow
    state: State
    reason: str = ""
    waits_for: str | None = None
    retry_s: float | None = None
    datasets: int = 0
    day_obs: int | None = None
    exposure: int | None = None

    @classmethod
    def ingested(
        cls,
        row: LedgerRow,
        datasets: int,
        *,
        remarks: Iterable[str] = (),
        day_obs: int | None = None,
        exposure: int | None = None,
    ) -> Self:
        """It is in the Butler; remarks say what an operator should know nevertheless."""
        noted = "; ".join(filter(None, (*remarks, _clock_remark(row))))
        reason = _storable(f"{REMARKED}{noted}")[:_REASON_CHARACTERS] if noted else ""
        return cls(row, State.INGESTED, reason, datasets=datasets, day_obs=day_obs, exposure=exposure)

    @classmethod
    def failed(cls, row: LedgerRow, error: Exception, *, patience_s: float) -> Self:
        """It isn't; the error says what next.

        Parameters
        ----------
        row, error
            Which, and why.
        patience_s
            So long it is tried again if the trouble may pass; then it goes to quarantine, where an operator sees it.

        Raises
        ------
        resources.errors.SiteFault
            The error is the site's, whatever the row: nothing should go on.
        """
        if isinstance(error, SiteFault):
            raise error
        if isinstance(trouble := trouble_of(error, "Butler"), SiteFault):
            raise trouble from error
        reason = _one_line(error)
        if isinstance(error, AlreadyThere):
            return cls(row, State.DUPLICATE, reason)
        if isinstance(error, Waiting):
            return cls(row, State.WAITING, reason, waits_for=_storable(error.where), retry_s=_jittered(LOOK_AGAIN_S))
        if is_retriable(error) and sum(map(_pause_after, range(row.attempts))) < patience_s:
            return cls(row, State.WAITING, reason, retry_s=_jittered(_pause_after(row.attempts)))
        return cls(row, State.QUARANTINED, reason)

    @classmethod
    def quarantined(cls, row: LedgerRow, reason: str) -> Self:
        """It never will be, as it is."""
        return cls(row, State.QUARANTINED, _storable(reason))

    def for_repetition(self, row: LedgerRow) -> Self:
        """The outcome of another message that announces the same file."""
        if self.state is State.INGESTED:
            return replace(self, row=row, state=State.DUPLICATE, reason="announced before", datasets=0)
        return replace(self, row=row)

    def to_settlement(self, now: datetime) -> Settlement:
        """What the ledger is told."""
        return Settlement(
            row_id=self.row.row_id,
            state=self.state,
            reason=self.reason,
            waits_for=self.waits_for,
            retry_at=None if self.retry_s is None else now + timedelta(seconds=self.retry_s),
            day_obs=self.day_obs,
            exposure=self.exposure,
        )


def is_retriable(error: Exception) -> bool:
    """Whether the same call may succeed later with nothing changed."""
    if isinstance(error, Retriable) or is_database_trouble(error) or _is_of_a_service(error):
        return True
    if isinstance(error, OSError):  # libraries raise it without a number for files that are no good
        return error.errno not in {None, errno.ENAMETOOLONG}
    return False


def _is_of_a_service(error: Exception) -> bool:
    """Whether the storage's server or the way to it is in trouble, or the site's right to read there."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from requests import RequestException  # as slow to import as it is seldom needed

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in _PASSING_REFUSALS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, FileNotFoundError | TimeoutError | ConnectionError | BotoCoreError | RequestException)


def ingest_in_bulk[T](items: Sequence[T], ingest: Callable[[Sequence[T]], None]) -> dict[int, Exception]:
    """Ingest a batch at once; if that fails, halve it until the bad members stand alone and all others are in.

    Parameters
    ----------
    items
        The batch.
    ingest
        Ingests all it is given, or raises and has ingested none.

    Returns
    -------
    errors
        The error of each bad member, by its index; n bad members cost about n log2(len(items)) calls.

    Raises
    ------
    resources.errors.SiteFault, resources.errors.Retriable
        No member is to blame.
    """
    errors: dict[int, Exception] = {}

    def attempt(start: int, stop: int) -> None:
        try:
            ingest(items[start:stop])
        except (SiteFault, Retriable):
            raise
        except Exception as error:  # whatever the Butler raises about untrusted files belongs to the row that caused it
            if stop - start == 1 or is_database_trouble(error):
                errors.update(dict.fromkeys(range(start, stop), error))
                return
            middle = (start + stop) // 2
            attempt(start, middle)
            attempt(middle, stop)

    if items:
        attempt(0, len(items))
    return errors


def _clock_remark(row: LedgerRow) -> str:
    """What is odd about the message's times: files don't come from the future."""
    if row.transferred_at is None or row.transferred_at <= row.received_at + CLOCK_TOLERANCE:
        return ""
    return f"its message comes from the future: transferred at {row.transferred_at:%Y-%m-%d %H:%M} UTC"


def _one_line(error: Exception) -> str:
    if isinstance(error, OperatorError):
        text = str(error)
    elif isinstance(error, DBAPIError):  # without the statement, which is no operator's
        text = f"the database refuses it: {' '.join(str(error.orig).split())}"
    else:
        text = " ".join(str(error).split())
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _storable(text)[:_REASON_CHARACTERS]


def _storable(text: str) -> str:
    """A text that every database, log and page has room for: what files hold needn't be Unicode."""
    return text.replace("\0", "?").encode("utf-8", "backslashreplace").decode()


def _pause_after(attempts: int) -> float:
    """How long to wait after a failure that came after so many others."""
    return min(FIRST_RETRY_S * 2.0 ** min(attempts, 10), LOOK_AGAIN_S)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)
