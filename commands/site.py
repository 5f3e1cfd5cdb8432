"""`drp site`: making a site ready for its first message.

Belongs here: the subcommands, thin. Doesn't: what a profile means (`resources.site`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arrivals.instruments import site_instrument
from commands.console import make_console
from drp_tasks.skymap import TangentSkyMap, register_skymap
from resources.butler import make_repository, open_butler
from resources.documents import read_yaml
from resources.errors import Rejected, SiteFault
from resources.site import Site, read_site

app = typer.Typer(no_args_is_help=True, help="Make a site ready.")


def prepare_site(profile: Site, skymap: TangentSkyMap) -> bool:
    """Make the site's Butler and register instrument and skymap; what is there already stays.

    Parameters
    ----------
    profile
        The site.
    skymap
        The sky's grid.

    Returns
    -------
    made
        Whether the repository was made now.

    Raises
    ------
    resources.errors.SiteFault
        The instrument isn't to be had, a folder can't be written, or the repository can't be made or opened.
    resources.errors.Rejected
        The Butler has another skymap or instrument of that name.
    """
    from lsst.daf.butler import CollectionType
    from lsst.daf.butler.registry import ConflictingDefinitionError

    instrument = site_instrument(profile.arrivals)  # before anything is made
    try:
        profile.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SiteFault(
            f"cannot be made: {error.strerror}", str(profile.state), "see whose the folder above it is, or name another"
        ) from error
    made = make_repository(profile.butler)
    butler = open_butler(profile.butler, writeable=True)
    try:
        instrument.register(butler.registry)
        register_skymap(butler, skymap, "skymaps")
    except ConflictingDefinitionError as error:
        raise Rejected(
            f"contradicts what the Butler has: {' '.join(str(error).split())}",
            f"instrument {instrument.getName()}, skymap {skymap.name}",
            "give a skymap with other parameters another name",
        ) from error
    if profile.arrivals.calibration_collection:
        butler.collections.register(profile.arrivals.calibration_collection, CollectionType.CALIBRATION)
    return made


@app.command("prepare")
def prepare(
    skymap: Annotated[Path, typer.Argument(help="YAML of the skymap's parameters")],
    profile: Annotated[Path | None, typer.Option("--site", help="site profile; by default $DRP_SITE")] = None,
) -> None:
    """Make the Butler repository, and register instrument and skymap."""
    found = read_site(profile)
    try:
        grid = TangentSkyMap.from_dict(read_yaml(skymap))
    except (TypeError, KeyError, ValueError) as error:
        raise Rejected(f"is no skymap: {error}", str(skymap), "give its parameters as YAML") from error
    made = prepare_site(found, grid)
    make_console().print(f"{found.butler.repository} {'made' if made else 'was there'}; skymap {grid.name} registered")
