"""What holds for every test: speed is not judged on a shared machine, and nothing that a test starts survives it."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from services.apache_kafka import ApacheKafka
from services.catalogue import SITE_TOPICS, make_kafka_site, make_kafka_usdf, make_mirror_maker, make_postgresql
from services.mirror_maker import MirrorMaker, NamingPolicy
from services.postgresql import PostgreSQL
from tests.shared_services import MARK, SharedServices, run_folder

PATIENCE_S = 30.0
"""How long processes that were told to end may take."""

SERVANTS = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")
"""Python's own helpers, which end with the process that they serve."""

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of the living processes that were started by a test run, or for something in its folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = f"{MARK}={folder}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if not command or any(servant in command for servant in SERVANTS) or int(process.name) == os.getpid():
            continue
        if marked or f"{folder}/" in command:
            found[int(process.name)] = command
    return found


def survivors(folder: Path) -> dict[int, str]:
    """Processes of a folder that are still there after all patience."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_survives(request, tmp_path_factory) -> Iterator[None]:
    folder = tmp_path_factory.getbasetemp()
    os.environ[MARK] = str(folder)
    yield
    del os.environ[MARK]
    if "PYTEST_XDIST_WORKER" not in os.environ:
        SharedServices(run_folder(request.config)).stop()
    assert not survivors(folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Keep the tests of a file on one worker, for their servers, and those of the survey that is run whole.

    Raises
    ------
    pytest.UsageError
        The plugin that deals out the tests didn't take notice, so that each worker would do all of a survey.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("survey" if item.get_closest_marker("e2e") else str(item.path)))
    yield
    if config.getoption("loadgroup", default=False) and not all("@" in item.nodeid for item in items):
        raise pytest.UsageError("pytest-xdist doesn't group the tests: does it fit this pytest?")


def pytest_configure() -> None:
    """Take the gentle signal for an interruption, after which the run ends its servers too."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the workers shared, when they have ended, and look for survivors of the whole run."""
    if not session.config.pluginmanager.hasplugin("dsession"):
        return
    folder = run_folder(session.config)
    SharedServices(folder).stop()
    if found := survivors(folder):
        pytest.exit(f"processes survive the test run: {found}", returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.fixture(scope="session")
def shared_services(request, nothing_survives) -> SharedServices:
    return SharedServices(run_folder(request.config))


@pytest.fixture(scope="session")
def postgresql(shared_services) -> Iterator[PostgreSQL]:
    """The run's PostgreSQL, whose passwords this process and its children know."""
    server = shared_services.start(make_postgresql(shared_services.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(server.passfile))
        yield server


@pytest.fixture(scope="session")
def new_database(postgresql) -> Callable[[], str]:
    """Make an empty database, and give its name."""

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        postgresql.create_database(name)
        return name

    return make


@pytest.fixture(scope="session")
def kafka_usdf(shared_services) -> ApacheKafka:
    """The run's Kafka that stands for the USDF's, over TLS."""
    return shared_services.start(make_kafka_usdf(shared_services.folder))


@pytest.fixture(scope="session")
def kafka_site(shared_services) -> ApacheKafka:
    """The run's Kafka that stands for a site's, over TLS."""
    return shared_services.start(make_kafka_site(shared_services.folder))


@pytest.fixture(scope="session")
def mirror_maker(shared_services, kafka_usdf, kafka_site) -> MirrorMaker:
    """The run's MirrorMaker2 from the one to the other, whose copies keep the topic's name."""
    return shared_services.start(make_mirror_maker(shared_services.folder, NamingPolicy.IDENTITY))


@pytest.fixture(scope="session")
def prefixing_mirror_maker(shared_services, kafka_usdf, kafka_site) -> MirrorMaker:
    """The run's MirrorMaker2 from the one to the other, whose copies are called ``usdf.TOPIC``."""
    return shared_services.start(make_mirror_maker(shared_services.folder, NamingPolicy.DEFAULT))


@pytest.fixture(scope="session")
def new_topic() -> Callable[[ApacheKafka, int], str]:
    """Make a topic that is meant for the site, and give its name."""

    def make(cluster: ApacheKafka, partitions: int = 1) -> str:
        name = f"{SITE_TOPICS}{uuid.uuid4().hex}"
        cluster.create_topic(name, partitions)
        return name

    return make
