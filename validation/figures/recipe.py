"""What the registry knows of a figure: its name, its words, and the function from a release's tract to a drawing.

Belongs here: the value that each family lists its figures as. Doesn't: the list of all (`validation.figures.registry`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from validation.figures.inputs import ReleaseTract


@dataclass(frozen=True, slots=True)
class Recipe:
    """A figure that can be drawn of a tract.

    Parameters
    ----------
    name
        Stem of its files.
    title
        In the index and the report.
    caption
        What to look for in it.
    product
        Dataset type it tells about: its asset check links the figure.
    draw
        Reads what it needs and draws; raises `validation.figures.inputs.InputMissing` if something isn't there.
    """

    name: str
    title: str
    caption: str
    product: str
    draw: Callable[[ReleaseTract], Figure]
