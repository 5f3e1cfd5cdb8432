"""The order in which bands are shown everywhere: by wavelength.

Belongs here: that order. Doesn't: colours and markers of bands (`validation.figures.style`).
"""

from __future__ import annotations

from collections.abc import Iterable

BAND_ORDER = "ugrizy"


def bands_in(bands: Iterable[str]) -> tuple[str, ...]:
    """Order the distinct bands by wavelength; unknown ones last.

    Parameters
    ----------
    bands
        In any order, repeated or not; empty text is a band too, and comes first.
    """
    return tuple(sorted(set(bands), key=lambda b: (BAND_ORDER.find(b) if b in BAND_ORDER else len(BAND_ORDER), b)))
