"""One message as it was read, understood or not: the pure step between Kafka and the ledger.

Belongs here: what becomes of a message that can't be understood or believed. Doesn't: understanding it
(`arrivals.message`), or reading it (`arrivals.drain`).
"""

from __future__ import annotations

from datetime import datetime

from arrivals.message import disbelief, parse_message
from arrivals.records import EXCERPT_BYTES, Partition, Reception
from resources.errors import Rejected


def receive(
    partition: Partition, offset: int, value: bytes | None, now: datetime, tolerance_s: float | None
) -> Reception:
    """Understand a message, or say why not; nothing is ever raised for what it holds.

    Parameters
    ----------
    partition, offset
        Where it stands.
    value
        The message; none is a tombstone.
    now
        The time.
    tolerance_s
        How far ahead of ``now`` its times may be; none: as far as they like.
    """
    try:
        message = parse_message(value)
    except Rejected as rejection:
        excerpt = (value or b"")[:EXCERPT_BYTES].decode("utf-8", errors="replace").replace("\0", "\ufffd")
        return Reception(partition, offset, None, str(rejection), excerpt)
    doubt = "" if tolerance_s is None else disbelief(message, now, tolerance_s)
    return Reception(partition, offset, message, doubt)
