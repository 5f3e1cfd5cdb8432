"""The services there are: what each is called, what it needs, and how it is made in the folder of all services.

Two Kafka clusters stand for the USDF and a site; what is meant for the site is copied there by MirrorMaker2, once with
each of its naming policies.

Belongs here: the list, and the order in which services start. Doesn't: any server itself (a module each), installing
packages (`services.installation`), or what operators type (`commands.services`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.apache_kafka import ApacheKafka, may_mirror_from, may_mirror_to, may_read
from services.embedded_kafka import EmbeddedKafka
from services.mirror_maker import PRINCIPAL, MirrorMaker, NamingPolicy
from services.pki import Authority
from services.postgresql import PostgreSQL
from services.service import Service, ServiceError
from services.slurm import ClusterShape, Slurm

READER = "drp-arrivals"
"""The platform's principal, which reads the site's topics, whatever they are called there, as groups of its own."""

READER_GROUPS = "drp-"
SITE_TOPICS = "LANCS-"
"""How the topics begin that are meant for the site; others are not copied."""

_TOPICS = {"LANCS-raw": 12, "RAL-raw": 12}
_PREFIXING = "usdf"
_IDENTITY = "usdf-same"


@dataclass(frozen=True, slots=True)
class Entry:
    """A service of the catalogue.

    Parameters
    ----------
    name
        What it is called on the command line, and its folder.
    kind
        Its class.
    make
        Makes it, given the folder of all services.
    needs
        Names of those that have to run before it.
    """

    name: str
    kind: type[Service]
    make: Callable[[Path], Service]
    needs: tuple[str, ...] = ()


def authority(folder: Path) -> Authority:
    """Give the certificate authority that all services share.

    Parameters
    ----------
    folder
        Of all services.
    """
    return Authority(folder / "pki")


def make_postgresql(folder: Path) -> PostgreSQL:
    """Make the database server."""
    return PostgreSQL(folder / "postgresql")


def make_embedded_kafka(folder: Path) -> EmbeddedKafka:
    """Make the cluster without Kafka."""
    return EmbeddedKafka(folder / "embedded-kafka")


def make_kafka_usdf(folder: Path) -> ApacheKafka:
    """Make the cluster that stands for the USDF's; MirrorMaker2 may read there what is meant for the site."""
    rules = may_mirror_from(PRINCIPAL, [SITE_TOPICS])
    return ApacheKafka(folder / "kafka-usdf", authority(folder), topics=_TOPICS, rules=rules)


def make_kafka_site(folder: Path) -> ApacheKafka:
    """Make the site's cluster, with the rights of the platform and of MirrorMaker2."""
    topics = (SITE_TOPICS, f"{_PREFIXING}.{SITE_TOPICS}")
    rules = may_read(READER, topics, READER_GROUPS) + may_mirror_to(PRINCIPAL, topics, (_PREFIXING, _IDENTITY))
    return ApacheKafka(folder / "kafka-site", authority(folder), rules=rules)


def make_mirror_maker(folder: Path, policy: NamingPolicy) -> MirrorMaker:
    """Make the copier from the USDF's cluster to the site's, whose copies are called as the policy says."""
    name, alias = ("mirror-maker", _IDENTITY) if policy is NamingPolicy.IDENTITY else ("mirror-maker-usdf", _PREFIXING)
    clusters = (make_kafka_usdf(folder), make_kafka_site(folder))
    return MirrorMaker(folder / name, *clusters, f"{SITE_TOPICS}.*", policy=policy, source_alias=alias)


ENTRIES = (
    Entry("postgresql", PostgreSQL, make_postgresql),
    Entry("embedded-kafka", EmbeddedKafka, make_embedded_kafka),
    Entry("kafka-usdf", ApacheKafka, make_kafka_usdf),
    Entry("kafka-site", ApacheKafka, make_kafka_site),
    Entry(
        "mirror-maker",
        MirrorMaker,
        lambda folder: make_mirror_maker(folder, NamingPolicy.IDENTITY),
        needs=("kafka-usdf", "kafka-site"),
    ),
    Entry(
        "mirror-maker-usdf",
        MirrorMaker,
        lambda folder: make_mirror_maker(folder, NamingPolicy.DEFAULT),
        needs=("kafka-usdf", "kafka-site"),
    ),
    Entry("slurm", Slurm, lambda folder: Slurm(folder / "slurm", ClusterShape(accounting=True))),
)
"""Every service, in an order in which they can start."""


def entries(names: Iterable[str] = ()) -> Sequence[Entry]:
    """Give entries of the catalogue in the order in which they can start.

    Parameters
    ----------
    names
        Which; all of them if none is named.

    Raises
    ------
    ServiceError
        A name is not in the catalogue: those that are are in the message.
    """
    wanted = set(names)
    known = [entry.name for entry in ENTRIES]
    if unknown := wanted.difference(known):
        raise ServiceError(f"no service is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [entry for entry in ENTRIES if not wanted or entry.name in wanted]


def with_needs(names: Iterable[str] = ()) -> Sequence[Entry]:
    """Give entries, and those that they need, in the order in which they can start.

    Parameters
    ----------
    names
        As for `entries`.
    """
    chosen = {entry.name for entry in entries(names)}
    for entry in reversed(ENTRIES):  # who needs comes after what it needs
        if entry.name in chosen:
            chosen.update(entry.needs)
    return entries(chosen)


def with_dependants(names: Iterable[str] = ()) -> Sequence[Entry]:
    """Give entries, and those that need them, in the order in which they can end.

    Parameters
    ----------
    names
        As for `entries`.
    """
    chosen = {entry.name for entry in entries(names)}
    for entry in ENTRIES:
        if chosen.intersection(entry.needs):
            chosen.add(entry.name)
    return [*reversed(entries(chosen))]


def packages() -> Sequence[str]:
    """Debian packages that the services need, each once."""
    return sorted({package for entry in ENTRIES for package in entry.kind.packages})
