"""Causes: a thousand reasons that differ by their file, number or checksum only are one cause.

Belongs here: the pure functions from a row's reason to what it has in common with others. Doesn't: the reasons
themselves (whoever raises them), or counting them (`arrivals.overview`).
"""

from __future__ import annotations

import re
from enum import StrEnum

ANYTHING = "…"
"""Stands in a cause for what differs: a file, a URL, a DID, a checksum, a name with a number."""

NUMBER = "N"
"""Stands in a cause for a number."""

_VARYING = (
    (re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s;,'\"]*[^\s;,:.'\"]"), ANYTHING),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), ANYTHING),
    (re.compile(r"(?<![\w…])[\w.+@%=~:-]*/[\w.+@%=~/-]*\w"), ANYTHING),
    (re.compile(r"(?<=adler32 )[0-9a-f]{8}\b"), ANYTHING),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8}\b(?<!\d{8})"), ANYTHING),
    (re.compile(r"(?<![\w.…-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w-]|\.\w)"), NUMBER),
    (re.compile(r"(?<![\w.+…-])(?=(?:[\w.+-]*\d){4})[\w.+-]*\w"), ANYTHING),
)


class ReasonClass(StrEnum):
    """What kind of trouble brought a message to quarantine; few and fixed, so that metrics can be kept by it."""

    NOT_UNDERSTOOD = "not_understood"
    """No Hermes message, or one that contradicts itself: the sender has to mend it."""

    OUTSIDE_MAPPING = "outside_mapping"
    """The announced URL isn't below a prefix that the site profile maps."""

    FILE_MISSING = "file_missing"
    """The file isn't where the message says, after all attempts."""

    WRONG_CONTENT = "wrong_content"
    """Size or checksum isn't the announced one, or the same DID came with other content."""

    UNREADABLE = "unreadable"
    """The file is as announced, but no raw, zip or export of dimensions."""

    CONTRADICTION = "contradiction"
    """Message, file and Butler don't agree: on dataset type, data ID, instrument or certification."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    """What may pass by itself hasn't: a file system or a database in trouble."""

    OTHER = "other"
    """None of these; the reason itself says more."""


_CLASSES = (
    (ReasonClass.OUTSIDE_MAPPING, r"that this site maps|before the URL"),
    (ReasonClass.FILE_MISSING, r"file is not there|FileNotFoundError|No such file"),
    (ReasonClass.WRONG_CONTENT, r"(were|was) announced; have it|with other content"),
    (
        ReasonClass.UNREADABLE,
        r"header can't be read|is not YAML|no export of dimension|holds no dimension|too large for dimensions|[Zz]ip",
    ),
    (
        ReasonClass.CONTRADICTION,
        r"header says|data ?ID|dataset type|storage class|but this site takes| has no |not certified|neither ingested"
        r"|made no record|has no sidecar|Conflicting|Inconsistent",
    ),
    (
        ReasonClass.RETRIES_EXHAUSTED,
        r"try again|can't be (read|looked at) now|database|OperationalError|OSError|Error: \[Errno|Timeout|timed out"
        r"|ConnectionError|ClientError",
    ),
)
_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in _CLASSES)


def cause_of(reason: str) -> str:
    """What a reason has in common with others: files, URLs, DIDs and checksums become ``…``, numbers ``N``.

    Parameters
    ----------
    reason
        One line, as the ledger has it.
    """
    for varying, placeholder in _VARYING:
        reason = varying.sub(placeholder, reason)
    return reason


def classify(reason: str, *, understood: bool = True) -> ReasonClass:
    """The kind of trouble that a quarantined row's reason tells of.

    Parameters
    ----------
    reason
        One line, as the ledger has it.
    understood
        Whether the message itself was.
    """
    if not understood:
        return ReasonClass.NOT_UNDERSTOOD
    return next((name for name, pattern in _COMPILED if pattern.search(reason)), ReasonClass.OTHER)


def surest_fragment(text: str) -> str:
    """The longest piece between placeholders: what every reason of this cause contains literally.

    Parameters
    ----------
    text
        A cause or a piece of one, as an operator copies it from a list.
    """
    return max(re.split(rf"{ANYTHING}|\b{NUMBER}\b", text), key=len)


def matches(reason: str, text: str) -> bool:
    """Whether an operator who writes ``text`` means this reason: it is a piece of the reason, or of its cause."""
    return text in reason or text in cause_of(reason)
