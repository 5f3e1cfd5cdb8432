"""Errors named by who may retry, so that the layer that retries needs to know nothing of the layer that fails.

Belongs here: the four kinds of trouble an operator meets, each with what, where and how to mend it, on one line.
Doesn't: exceptions that a library already has a good name for, or deciding what to do about any of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class OperatorError(Exception):
    """Something an operator has to know, said in one line.

    Parameters
    ----------
    what
        What is wrong, in the field's words.
    where
        File and key, topic and offset, collection or data ID.
    mend
        What to do about it.
    """

    what: str
    where: str = ""
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.mend}" if self.mend else line


class Retriable(OperatorError):
    """The same call may succeed later, with nothing changed: a time-out, a lock, a lost connection."""


class Waiting(OperatorError):
    """The call will succeed when something named here has come, such as an exposure's dimensions."""


class Rejected(OperatorError):
    """The input itself is wrong; repeating changes nothing."""


class SiteFault(OperatorError):
    """A service or the site's configuration is at fault, whatever the input."""
