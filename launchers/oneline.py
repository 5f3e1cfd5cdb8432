"""Trouble in one line, on plain ``bps`` command lines too.

``bps`` is a click program: click shows its own exceptions as a line, and others as a traceback. So what leaves the
service is both, an error of ours for who calls it from Python, and click's for ``bps``.

Belongs here: `in_one_line`. Doesn't: the errors themselves (`resources.errors`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import click

from resources.errors import OperatorError

_KINDS: dict[type[OperatorError], type[OperatorError]] = {}


def in_one_line[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Let click show the function's errors as operators want to read them.

    Parameters
    ----------
    function
        Raises `resources.errors.OperatorError`; so does what is returned, of the same kinds.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OperatorError as error:
            if isinstance(error, click.ClickException):
                raise
            shown = _kind(type(error))(error.what, error.where, error.mend)
            click.ClickException.__init__(shown, str(error))  # type: ignore[arg-type]
            raise shown.with_traceback(error.__traceback__) from error.__cause__

    return wrapped


def _kind(kind: type[OperatorError]) -> type[OperatorError]:
    """Give the kind of error that is of click's as well."""
    if kind not in _KINDS:
        _KINDS[kind] = type(kind.__name__, (kind, click.ClickException), {"__doc__": kind.__doc__})
    return _KINDS[kind]
