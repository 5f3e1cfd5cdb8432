"""What a release's catalogue holds, for tests that compare catalogues."""

from __future__ import annotations

from astropy.table import Table

from resources.butler import open_butler
from resources.site import ButlerSettings
from simulator.survey import CI


def read_objects(settings: ButlerSettings) -> Table:
    """Read the catalogue that the small survey's release shows."""
    (ref,) = (butler := open_butler(settings)).query_datasets("object", collections=CI.name)
    return butler.get(ref)
