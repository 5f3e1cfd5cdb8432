"""The one console that commands print on.

Belongs here: its settings. Doesn't: what is printed.
"""

from __future__ import annotations

import sys

from rich.console import Console

_PLAIN_WIDTH = 140


def make_console(*, stderr: bool = False) -> Console:
    """Make a console that prints text as it is, and never cuts a table that nobody's terminal has to fit.

    Square brackets are no markup: reasons, causes and names hold them. What has a style is a `rich.text.Text`.

    Parameters
    ----------
    stderr
        Whether it prints on standard error.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)
