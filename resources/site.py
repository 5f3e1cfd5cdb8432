"""The site profile: everything that differs between a laptop, Lancaster, RAL and USDF, in one file.

Belongs here: the frozen models of ``deploy/sites/<site>.yaml`` and reading them. Doesn't: opening what they name (the
other modules of `resources`), or anything about a release (`planning.release`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from resources.documents import Document, read_document
from resources.errors import Rejected

PROFILE_VARIABLE = "DRP_SITE"
"""The environment variable that names the site profile's file."""


class ButlerSettings(Document):
    """The site's Data Butler."""

    repository: str = Field(description="URI of the repository's folder or configuration file")
    registry: str | None = Field(None, description="SQLAlchemy URL for a new repository; none: SQLite inside it")
    formatters: Mapping[str, str] = Field(
        default_factory=dict, description="formatter by storage class in a new repository, where not the usual one"
    )
    datastore: str | None = Field(None, description="root of a new repository's files; none: inside the repository")


class TlsSettings(Document):
    """Client side of mTLS: PEM files, named here, never their content."""

    ca: Path
    certificate: Path
    key: Path


class KafkaSettings(Document):
    """The cluster that the site's messages arrive in."""

    bootstrap: str | None = Field(None, description="host:port[,…]; none: the address is read from `address_file`")
    address_file: Path | None = Field(None, description="file with the address, for clusters that choose a port")
    tls: TlsSettings | None = None
    client_id: str = "drp"


class PathRule(Document):
    """A prefix of announced URLs, and where those files are seen from here."""

    announced: str
    local: str


class ArrivalSettings(Document):
    """How messages become datasets."""

    topics: str = Field(description="regular expression of the topics to read, such as ^(usdf\\.)?LANCS-.*")
    group: str = Field("drp-arrivals", description="consumer group whose offsets are written for lag displays only")
    paths: tuple[PathRule, ...] = Field(min_length=1)
    instrument: str = Field(description="import path of the Instrument class")
    calibration_collection: str | None = Field(None, description="where calibration products are certified on arrival")
    register_dataset_types: bool = Field(True, description="register a product's dataset type when it is unknown")
    verify: Literal["always", "sample", "size"] = "always"
    batch_messages: Annotated[int, Field(gt=0)] = 10_000
    batch_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    batch_age_s: Annotated[float, Field(gt=0)] = 5.0
    max_clock_difference_s: Annotated[float, Field(ge=0)] | None = Field(
        86_400.0, description="messages from further in the future are put into quarantine; none: any time is believed"
    )
    ingest_batch: Annotated[int, Field(gt=0)] = 5_000
    interval_s: Annotated[int, Field(gt=0)] = Field(30, description="how often the arrivals sensor looks")
    quiescent_s: Annotated[float, Field(ge=0)] = Field(
        60.0, description="a day_obs is ready when complete and nothing of it has arrived for this long"
    )
    longest_wait_s: Annotated[float, Field(gt=0)] = Field(
        300.0, description="so long a message waits for its day_obs to be quiet; then it is ingested all the same"
    )
    max_lag_messages: Annotated[int, Field(ge=0)] = Field(
        100_000, description="more messages still in Kafka than this are an operator's business"
    )
    max_ingest_delay_s: Annotated[float, Field(gt=0)] = Field(
        900.0, description="so long may a message be due before its ingest is tried"
    )
    max_waiting_s: Annotated[float, Field(gt=0)] = Field(
        6 * 3600.0, description="so long may a message wait for dimensions, or for trouble to pass"
    )
    max_quarantined: Annotated[int, Field(ge=0)] = Field(
        100, description="more messages in quarantine than this are an operator's business"
    )
    min_transfer_efficiency: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="share of a day's transfers that should succeed"
    )
    health_interval_s: Annotated[float, Field(gt=0)] = Field(
        300.0,
        description="how often the arrivals sensor reports health; at once when Kafka goes away or comes back",
    )
    transfers_interval_s: Annotated[int, Field(gt=0)] = Field(
        3600, description="how often statistics of transfers are made anew where events have come"
    )


class SoftwareSettings(Document):
    """How the pipelines' software comes to a worker: from a stack such as CVMFS has, perhaps inside a container."""

    stack: str | None = Field(
        None, description="folder of loadLSST.bash as workers see it, such as /cvmfs/sw.lsst.eu/…"
    )
    setup: tuple[str, ...] = Field(("setup lsst_distrib",), description="shell commands after loadLSST.bash")
    image: str | None = Field(None, description="container image that jobs run in, as the site's workers name it")
    binds: tuple[str, ...] = Field((), description="folders of the worker that the container sees")


class UrlRule(Document):
    """A prefix of URLs as this machine writes them, and as jobs have to."""

    here: str
    on_workers: str


class WmsSettings(Document):
    """The site's batch system, as BPS reaches it, and what its jobs need before the first command of theirs."""

    service: str = Field(description="import path of the BaseWmsService")
    compute_site: str = "local"
    poll_s: Annotated[float, Field(gt=0)] = 30.0
    silence_s: Annotated[float, Field(gt=0)] = Field(
        600.0, description="so long may the batch system give no answer before a run that watches it fails"
    )
    include_configs: tuple[str, ...] = Field((), description="BPS files that hold where nothing else is said")
    software: SoftwareSettings = SoftwareSettings()
    environment: Mapping[str, str] = Field(
        default_factory=dict, description="variables of every job; paths of secrets, never secrets"
    )
    prologue: tuple[str, ...] = Field(
        (), description="shell commands before the software is set up; $NAME is the worker's variable"
    )
    urls: tuple[UrlRule, ...] = Field((), description="how jobs reach what has another name here")
    bps: Mapping[str, Any] = Field(default_factory=dict, description="BPS settings that hold for every submission here")


class RunLimits(Document):
    """How many Dagster runs, each with one submission, there are at a time."""

    site: Annotated[int, Field(gt=0)] = Field(20, description="of all releases")
    release: Annotated[int, Field(gt=0)] = Field(20, description="of any one release")
    step: Annotated[int, Field(gt=0)] = Field(10, description="of any one step of a release")
    steps: Mapping[str, Annotated[int, Field(gt=0)]] = Field(
        default_factory=dict, description="by a step's short name, where not as `step` says"
    )


class Site(Document):
    """A place where releases are made."""

    name: str
    state: Path = Field(description="folder of submissions, graphs, logs, figures and reports")
    butler: ButlerSettings
    ledger: str = Field(description="SQLAlchemy URL of the arrivals' ledger")
    kafka: KafkaSettings
    arrivals: ArrivalSettings
    wms: WmsSettings
    limits: RunLimits = RunLimits()
    automation_interval_s: Annotated[int, Field(gt=0)] = Field(30, description="how often automation is evaluated")
    reports_url: str | None = Field(None, description="where the reports folder is served; none: paths are shown")

    @property
    def submissions(self) -> Path:
        """Where each submission's graph, BPS files and logs live."""
        return self.state / "submissions"

    @property
    def reports(self) -> Path:
        """Where figures and reports are written."""
        return self.state / "reports"


def read_site(path: Path | None = None) -> Site:
    """Read a site profile.

    Parameters
    ----------
    path
        The file; by default the one that the environment variable ``DRP_SITE`` names.

    Raises
    ------
    resources.errors.Rejected
        No profile is named, or the file is wrong: one line names file, key and remedy.
    """
    if path is None:
        named = os.environ.get(PROFILE_VARIABLE)
        if not named:
            raise Rejected(
                "no site profile is named", PROFILE_VARIABLE, f"export {PROFILE_VARIABLE}=deploy/sites/<site>.yaml"
            )
        path = Path(named)
    return read_document(path, Site)
