"""The site's Data Butler: opening it, and making a new repository.

Belongs here: the one place that opens a Butler or makes a repository. Doesn't: what is put into it (`arrivals`,
`launchers`), or the names of a release's collections (`planning.release`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from resources.errors import SiteFault

if TYPE_CHECKING:
    from lsst.daf.butler import Butler

    from resources.site import ButlerSettings


def open_butler(settings: ButlerSettings, *, writeable: bool = False) -> Butler:
    """Open the site's Butler.

    Parameters
    ----------
    settings
        The site profile's `butler`.
    writeable
        Whether datasets and collections will be written.

    Raises
    ------
    resources.errors.SiteFault
        The repository isn't there or its database doesn't answer.
    """
    from lsst.daf.butler import Butler
    from sqlalchemy.exc import OperationalError

    try:
        return Butler.from_config(settings.repository, writeable=writeable)
    except FileNotFoundError as error:
        raise SiteFault("no Butler repository", settings.repository, "make it with `drp site prepare`") from error
    except OperationalError as error:
        cause = str(error.orig).splitlines()[0]
        raise SiteFault(
            f"the registry doesn't answer: {cause}",
            settings.repository,
            "see that its database is up, and the address in the site profile",
        ) from error


def make_repository(settings: ButlerSettings) -> bool:
    """Make the site's repository, unless it is there.

    Parameters
    ----------
    settings
        The site profile's `butler`.

    Returns
    -------
    made
        Whether it was made now.
    """
    from lsst.daf.butler import Butler, Config
    from lsst.resources import ResourcePath

    root = ResourcePath(settings.repository, forceDirectory=True)
    if root.join("butler.yaml").exists():
        return False
    config = Config()
    if settings.registry:
        config["registry", "db"] = settings.registry
    if settings.datastore:
        config["datastore", "root"] = settings.datastore
    for storage_class, formatter in settings.formatters.items():
        config["datastore", "formatters", storage_class] = formatter
    if root.isLocal:
        Path(root.ospath).parent.mkdir(parents=True, exist_ok=True)
    Butler.makeRepo(root, config=config, forceConfigRoot=settings.datastore is None)
    return True


def existing(butler: Butler, names: Iterable[str]) -> list[str]:
    """Give those collections that exist, in the order given.

    Parameters
    ----------
    butler
        Any.
    names
        Names of collections.
    """
    from lsst.daf.butler import MissingCollectionError

    found = []
    for name in names:
        try:
            butler.collections.get_info(name)
        except MissingCollectionError:
            continue
        found.append(name)
    return found


def extend_chain(butler: Butler, chain: str, children: Iterable[str]) -> list[str]:
    """Make sure that a CHAINED collection ends with these; what is in it already keeps its place.

    Parameters
    ----------
    butler
        Writeable.
    chain
        The collection's name; made when missing.
    children
        Names of collections; those that don't exist yet are left out.

    Returns
    -------
    missing
        The children that don't exist.
    """
    from lsst.daf.butler import CollectionType

    children = list(children)
    butler.collections.register(chain, CollectionType.CHAINED)
    present = butler.collections.get_info(chain).children
    known = existing(butler, children)
    new = [name for name in known if name not in present]
    if new:
        butler.collections.extend_chain(chain, new)
    return [name for name in children if name not in known]
