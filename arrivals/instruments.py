"""The instrument whose data a site takes.

Belongs here: making the class that the site profile names, and what its raws are called. Doesn't: registering it
(`commands.site`), or what else is asked of it (`arrivals.raws`, `arrivals.obs_base`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resources.errors import SiteFault
from resources.site import ArrivalSettings

if TYPE_CHECKING:
    from lsst.daf.butler import Registry
    from lsst.pipe.base import Instrument


def site_instrument(settings: ArrivalSettings, registry: Registry | None = None) -> Instrument:
    """Make the site's instrument.

    Parameters
    ----------
    settings
        The site profile's.
    registry
        Where an instrument that is named shortly is looked up; without one, its class has to be named.

    Raises
    ------
    resources.errors.SiteFault
        It isn't to be had here, such as where its package isn't installed.
    """
    from lsst.pipe.base import Instrument

    try:
        return Instrument.from_string(settings.instrument, registry)
    except (RuntimeError, TypeError) as error:
        raise SiteFault(
            " ".join(str(error).split()),
            "arrivals.instrument",
            "name the class by its import path, and see that its package is installed",
        ) from error


def raw_dataset_type(instrument: Instrument) -> str:
    """Name of an instrument's raws.

    Parameters
    ----------
    instrument
        Whose.
    """
    return instrument.raw_definition[0] if instrument.raw_definition else "raw"
