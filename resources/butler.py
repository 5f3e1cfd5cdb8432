"""The site's Data Butler: opening it, and making a new repository.

Belongs here: the one place that opens a Butler or makes a repository. Doesn't: what is put into it (`arrivals`,
`launchers`), or the names of a release's collections (`planning.release`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from resources.errors import SiteFault

if TYPE_CHECKING:
    from lsst.daf.butler import Butler, Config
    from lsst.resources import ResourcePath

    from resources.site import ButlerSettings

_CONFIGURATION = "butler.yaml"
_SQLITE_LACKS = "no such table"
"""So SQLite's OperationalError begins where others raise ProgrammingError."""


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
        The repository isn't there, can't be read or is half made, or its database doesn't answer.
    """
    from lsst.daf.butler import Butler
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        return Butler.from_config(settings.repository, writeable=writeable)
    except FileNotFoundError as error:
        raise SiteFault("no Butler repository", settings.repository, "make it with `drp site prepare`") from error
    except OSError as error:
        raise SiteFault(
            f"cannot be read: {_told(error)}", settings.repository, "see that it is whole, and whose it is"
        ) from error
    except DatabaseError as error:
        cause = _told(error.orig or error)
        if isinstance(error, OperationalError) and not cause.startswith(_SQLITE_LACKS):
            raise SiteFault(
                f"the registry doesn't answer: {cause}",
                settings.repository,
                "see that its database is up, and the address in the site profile",
            ) from error
        raise SiteFault(
            f"the registry is not as it should be: {cause}",
            settings.repository,
            "if it was never whole, remove the repository's configuration file and make it with `drp site prepare`",
        ) from error.orig  # which isn't taken for a database that is away


def make_repository(settings: ButlerSettings) -> bool:
    """Make the site's repository, unless it is there; where that fails, it can be tried again.

    Parameters
    ----------
    settings
        The site profile's `butler`.

    Returns
    -------
    made
        Whether it was made now.

    Raises
    ------
    resources.errors.SiteFault
        It can't be made: its database doesn't answer or lacks something, or its folder can't be written.
    """
    from lsst.daf.butler import Butler
    from sqlalchemy.exc import DBAPIError

    from resources.databases import database_url

    root, file = _places(settings.repository)
    try:
        if file.exists():
            return False
    except OSError as error:
        raise SiteFault(f"cannot be looked for: {_told(error)}", str(file), "see whose its folder is") from error
    if settings.registry:
        database_url(settings.registry, "the site profile's butler.registry")
    try:
        if root.isLocal:
            Path(root.ospath).parent.mkdir(parents=True, exist_ok=True)
        with _removed_on_failure(file):
            # A configuration file that is named otherwise has to say where its repository is.
            Butler.makeRepo(
                root,
                config=_configuration(settings),
                forceConfigRoot=settings.datastore is None,
                outfile=None if file.basename() == _CONFIGURATION else file,
            )
    except DBAPIError as error:
        raise SiteFault(
            f"the registry can't be made: {_told(error.orig or error)}",
            settings.repository,
            "see that its database is up, and the address in the site profile; then try again",
        ) from error
    except RuntimeError as error:
        raise SiteFault(
            f"the registry can't be made: {_told(error)}",
            settings.repository,
            "mend its database, empty it if a registry was begun there, and try again",
        ) from error
    except OSError as error:
        raise SiteFault(
            f"the repository can't be made: {_told(error)}",
            settings.repository,
            "see that its folder can be written, and try again",
        ) from error
    return True


@contextmanager
def _removed_on_failure(file: ResourcePath) -> Iterator[None]:
    """Have a repository's configuration file, which is made before the registry, not pass for a whole repository."""
    try:
        yield
    except FileExistsError:  # another one's
        raise
    except BaseException:
        with suppress(Exception):  # what failed first is what has to be told
            file.remove()
        raise


def _places(repository: str) -> tuple[ResourcePath, ResourcePath]:
    """The folder and the configuration file of a repository that is named by either."""
    from lsst.resources import ResourcePath

    named = ResourcePath(repository)
    if named.getExtension() in {".yaml", ".yml"}:
        return named.dirname(), named
    root = ResourcePath(repository, forceDirectory=True)
    return root, root.join(_CONFIGURATION)


def _configuration(settings: ButlerSettings) -> Config:
    """What the profile says of a new repository."""
    from lsst.daf.butler import Config

    config = Config()
    if settings.registry:
        config["registry", "db"] = settings.registry
    if settings.datastore:
        config["datastore", "root"] = settings.datastore
    for storage_class, formatter in settings.formatters.items():
        config["datastore", "formatters", storage_class] = formatter
    return config


def _told(error: BaseException) -> str:
    """An error's first line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
