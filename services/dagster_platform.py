"""Dagster's own processes on loopback: a code server a location, the daemon and the web UI, on an instance made here.

Belongs here: starting them under one folder, and the laptop's instance made from the site's ``dagster.yaml``.
Doesn't: what the locations define; Dagster itself is only started here, never imported.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import yaml

from services.loopback import CONNECT_TIMEOUT_S, LOOPBACK, LoopbackServer
from services.service import Service

_PROGRAMS = Path(sys.executable).parent


def make_laptop_instance(site_instance: Path, home: Path) -> None:
    """Write the laptop's ``dagster.yaml``: the site's, with SQLite for storage and short intervals.

    The storage is `launchers.laptop_storage.UnhurriedSqliteStorage`, which Dagster's processes import by its name.

    Parameters
    ----------
    site_instance
        The site's ``dagster.yaml``.
    home
        The new instance's folder (``DAGSTER_HOME``).
    """
    instance = yaml.safe_load(site_instance.read_text())
    instance["storage"] = {
        "custom": {
            "module": "launchers.laptop_storage",
            "class": "UnhurriedSqliteStorage",
            "config": {"base_dir": str(home)},
        }
    }
    # What a run's worker prints is in its own file; capturing it again takes four processes a step, which a killed
    # worker leaves behind.
    instance["compute_logs"] = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    instance["run_coordinator"] = {
        "module": "dagster._core.run_coordinator",
        "class": "DefaultRunCoordinator",
    }
    del instance["concurrency"]
    instance["run_monitoring"]["poll_interval_seconds"] = 2
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance))


class DagsterServer(LoopbackServer):
    """A process of Dagster's, or beside it, that listens on loopback.

    Parameters
    ----------
    folder
        Where its port, pid and log are.
    variables
        Environment of its process.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._variables = variables

    def environment(self) -> Mapping[str, str]:
        """Give the variables it was made with."""
        return self._variables

    @property
    def address(self) -> str:
        """URL of the server."""
        return f"http://{super().address}"


class CodeServer(DagsterServer):
    """The process that holds one code location.

    Parameters
    ----------
    folder, variables
        As for every server here.
    location
        Name of the location, an attribute of ``drp_assets.definitions``.
    """

    name: ClassVar[str] = "code-server"
    start_timeout_s: ClassVar[float] = 120.0

    def __init__(self, folder: Path, variables: Mapping[str, str], location: str) -> None:
        super().__init__(folder, variables)
        self.location = location

    def environment(self) -> Mapping[str, str]:
        """Wait for no call when told to go: whoever calls has gone before, or asks again."""
        return {**super().environment(), "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "1"}

    def command(self) -> Sequence[str]:
        """Serve the location."""
        target = ["--module-name", "drp_assets.definitions", "--attribute", self.location]
        where = ["--host", LOOPBACK, "--port", str(self.port), "--location-name", self.location]
        return [str(_PROGRAMS / "dagster"), "api", "grpc", *target, *where]


class Daemon(Service):
    """Dagster's daemon: sensors, automation, backfills, run monitoring.

    Parameters
    ----------
    folder
        Where its pid and log are.
    variables
        Environment of its process.
    workspace
        The file that names the code servers.
    """

    name: ClassVar[str] = "dagster-daemon"

    def __init__(self, folder: Path, variables: Mapping[str, str], workspace: Path) -> None:
        super().__init__(folder)
        self._variables = variables
        self._workspace = workspace

    def environment(self) -> Mapping[str, str]:
        """Give the variables it was made with."""
        return self._variables

    def command(self) -> Sequence[str]:
        """Run the daemon."""
        return [sys.executable, "-m", "launchers.laptop_daemon", "run", "--workspace", str(self._workspace)]

    def is_ready(self) -> bool:
        """Whether it runs; its work shows in the UI."""
        return self.pid is not None

    @property
    def address(self) -> str:
        """It has none."""
        return ""


class WebUi(DagsterServer):
    """Dagster's web UI.

    Parameters
    ----------
    folder, variables
        As for every server here.
    workspace
        The file that names the code servers.
    """

    name: ClassVar[str] = "dagster-webserver"
    start_timeout_s: ClassVar[float] = 120.0

    def __init__(self, folder: Path, variables: Mapping[str, str], workspace: Path) -> None:
        super().__init__(folder, variables)
        self._workspace = workspace

    def command(self) -> Sequence[str]:
        """Serve the UI."""
        where = ["--host", LOOPBACK, "--port", str(self.port)]
        return [str(_PROGRAMS / "dagster-webserver"), "--workspace", str(self._workspace), *where]

    def is_ready(self) -> bool:
        """Whether it answers requests."""
        try:
            with urllib.request.urlopen(f"{self.address}/server_info", timeout=CONNECT_TIMEOUT_S):
                return True
        except (urllib.error.URLError, OSError):
            return False


class ReportServer(DagsterServer):
    """A plain file server for figures and reports.

    Parameters
    ----------
    folder, variables
        As for every server here.
    reports
        The folder that it serves.
    """

    name: ClassVar[str] = "reports"

    def __init__(self, folder: Path, variables: Mapping[str, str], reports: Path) -> None:
        super().__init__(folder, variables)
        self._reports = reports

    def prepare(self) -> None:
        """Make the folder."""
        super().prepare()
        self._reports.mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str]:
        """Serve the folder."""
        return [
            sys.executable,
            "-m",
            "http.server",
            str(self.port),
            "--bind",
            LOOPBACK,
            "--directory",
            str(self._reports),
        ]


class DagsterPlatform:
    """All of Dagster's processes, started and stopped together.

    Parameters
    ----------
    folder
        Of their pids, ports and logs.
    home
        The instance's folder.
    locations
        Names of the code locations.
    variables
        Environment of every process, besides ``DAGSTER_HOME``.
    """

    def __init__(self, folder: Path, home: Path, locations: Sequence[str], variables: Mapping[str, str]) -> None:
        variables = {**variables, "DAGSTER_HOME": str(home)}
        self.workspace = folder / "workspace.yaml"
        self.code_servers = [CodeServer(folder / f"code-{name}", variables, name) for name in locations]
        self.daemon = Daemon(folder / "daemon", variables, self.workspace)
        self.web_ui = WebUi(folder / "webserver", variables, self.workspace)

    @property
    def services(self) -> tuple[Service, ...]:
        """Every process, in the order in which they have to start."""
        return (*self.code_servers, self.daemon, self.web_ui)

    def start(self) -> None:
        """Start what doesn't run.

        Raises
        ------
        services.service.ServiceError
            One of them didn't come up.
        """
        self.workspace.parent.mkdir(parents=True, exist_ok=True)
        servers = [
            {"grpc_server": {"host": LOOPBACK, "port": server.port, "location_name": server.location}}
            for server in self.code_servers
        ]
        self.workspace.write_text(yaml.safe_dump({"load_from": servers}))
        with ThreadPoolExecutor() as starters:
            list(starters.map(Service.start, self.code_servers))
            list(starters.map(Service.start, (self.daemon, self.web_ui)))

    def stop(self) -> None:
        """Stop what runs, the last started first."""
        for service in reversed(self.services):
            service.stop()
