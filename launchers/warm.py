"""A process that has the third-party imports done, and forks a worker for each command line it is given.

Importing the middleware takes four seconds a process, which a submission of a few processes would pay several times
over. The warm process pays it once: ``pipetask``, ``butler`` and ``python -m …`` run in a fork of it, with the caller's
arguments, environment, folder and streams. Nothing of this project is imported before the fork, so that changed code is
always seen.

Belongs here: the server (preload, accept, fork), starting and stopping it, and the shims that lead to it.
Doesn't: what happens in a fork (`launchers.warm_worker`), the callers' side (`launchers.warm_client`), or knowing what
the commands are for. Without a warm process everything runs as well, only slower.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import shlex
import socket
import struct
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from launchers import warm_client
from launchers.processes import ProcessIdentity, exclusive, start_detached
from launchers.warm_worker import PROGRAMS, keep

STATE_VARIABLE = "DRP_WARM_STATE"
IDLE_S = 900.0
_LOOK_S = 2.0
_LONGEST_ADDRESS = 100

_SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""What keeps the preloaded libraries from starting threads, of which a fork would have only the one that forks."""

PRELOADED = (
    "lsst.ctrl.mpexec.cli.pipetask",
    "lsst.ctrl.mpexec.cli.cmd",
    "lsst.ctrl.mpexec.cli.script",
    "lsst.ctrl.bps.cli.bps",
    "lsst.ctrl.bps.drivers",
    "lsst.daf.butler.cli.butler",
    "lsst.daf.butler.cli.cmd",
    "lsst.daf.butler.direct_butler",
    "lsst.daf.butler.registry.sql_registry",
    "lsst.daf.butler.registry.databases.sqlite",
    "lsst.daf.butler.registry.databases.postgresql",
    "lsst.daf.butler.datastores.fileDatastore",
    "lsst.daf.butler.formatters.parquet",
    "lsst.daf.butler.formatters.json",
    "lsst.pipe.base.cli.cmd.commands",
    "lsst.pipe.base.all_dimensions_quantum_graph_builder",
    "lsst.pipe.base.mp_graph_executor",
    "lsst.pipe.base.single_quantum_executor",
    "lsst.pipe.base.quantum_graph.aggregator",
    "lsst.images.formatters",
    "lsst.resources.http",
    "lsst.images",
    "astropy.io.fits",
    "astropy.table",
    "astropy.wcs",
    "astropy.coordinates",
    "astropy.timeseries",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse.linalg",
    "scipy.spatial",
    "pandas",
    "pyarrow.parquet",
    "sep",
    "galsim",
    "galsim.hsm",
    "fsspec.implementations.http",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "healsparse",
    "treecorr",
    "psycopg",
    "dagster",
    "dagster._cli.api",
    "dagster._core.execution.api",
    "dagster._core.definitions.reconstruct",
    "dagster._core.storage.runs.sqlite",
    "dagster._core.storage.event_log.sqlite",
    "dagster._core.storage.schedules.sqlite",
    "dagster_postgres",
)
"""What is imported before the first command; what isn't installed is passed over."""


def packages_folder() -> str:
    """Where the environment's packages are: a warm process serves one environment."""
    return sysconfig.get_path("purelib")


def shim_folder() -> list[Path]:
    """Return the folder of shims to put on a job's PATH, if this process was told of a warm one; empty otherwise."""
    state = os.environ.get(STATE_VARIABLE)
    if not state:
        return []
    start(Path(state))
    return [write_shims(Path(state))]


def write_shims(state: Path) -> Path:
    """Write executables named like the programs, which hand their command line to the warm process."""
    folder = state / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    client = str(Path(warm_client.__file__))
    for program in PROGRAMS:
        call = [sys.executable, "-S", "-E", client, str(state), packages_folder(), program]
        text = f'#!/bin/sh\nDRP_WARM_SHIMS={shlex.quote(str(folder))} exec {shlex.join(call)} "$@"\n'
        shim = folder / program
        if not shim.exists() or shim.read_text(encoding="utf-8") != text:
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as new:
                new.write(text)
            Path(new.name).chmod(0o755)
            Path(new.name).replace(shim)
    return folder


def start(state: Path, *, idle_s: float = IDLE_S) -> None:
    """Start the warm process unless it runs; come back when it takes commands, which wait for its imports."""
    state = state.absolute()
    if _is_there(state):
        return
    with exclusive(state / "warm.lock", wait_s=30.0) as lock:
        if lock is None or _is_there(state):
            return
        command = [sys.executable, "-m", "launchers.warm", str(state), str(idle_s)]
        environment = dict(os.environ) | _SINGLE_THREADED
        # Each command brings its own; the first caller's is nobody else's business.
        environment.pop("PYTHONPATH", None)
        server = start_detached(command, state / "warm.log", environment=environment)
        deadline = time.monotonic() + 20.0
        while server.is_alive and time.monotonic() < deadline and not _is_there(state):
            time.sleep(0.02)


def stop(state: Path) -> None:
    """Let the warm process end, in a moment; commands that run go on."""
    for address in state.absolute().glob("warm-*.address"):
        address.unlink(missing_ok=True)


def _is_there(state: Path) -> bool:
    connection = warm_client.connect(str(state), packages_folder())
    if connection is None:
        return False
    connection.close()
    return True


def run_detached(
    state: Path, argv: Sequence[str], log: Path, *, environment: Mapping[str, str], directory: Path
) -> ProcessIdentity | None:
    """Run a command line in a fork that outlives everybody; None when there is no warm process to do so.

    Parameters
    ----------
    state
        Folder of the warm process.
    argv
        Program (see `PROGRAMS`, or ``python -m``) and arguments.
    log
        File that its output is appended to.
    environment, directory
        What it runs with and in.
    """
    connection = warm_client.connect(str(state.absolute()), packages_folder())
    if connection is None:
        return None
    log.parent.mkdir(parents=True, exist_ok=True)
    with connection, log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        descriptors = (nothing.fileno(), output.fileno(), output.fileno())
        started = warm_client.send_command(
            connection, argv, environment, descriptors, directory=str(directory), detached=True
        )
    return None if started is None else ProcessIdentity.parse(started.decode())


def preload(names: Sequence[str] = PRELOADED) -> None:
    """Import what commands are going to need."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not preloaded: {name} ({error})", flush=True)


class Server:
    """The warm process: accepts connections, and forks a keeper for each."""

    def __init__(self, state: Path, idle_s: float) -> None:
        self._state = state
        self._idle_s = idle_s
        self._keepers: set[int] = set()
        self._last_used = time.monotonic()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._address = self._bind()

    def _bind(self) -> Path:
        self._state.mkdir(parents=True, exist_ok=True)
        path = self._state / f"warm-{os.getpid()}.socket"
        if len(os.fsencode(path)) > _LONGEST_ADDRESS:
            path = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"
        before = os.umask(0o077)
        self._listener.bind(str(path))
        os.umask(before)
        self._listener.listen(64)
        address = Path(warm_client.address_file(str(self._state), packages_folder()))
        new = address.with_suffix(f".{os.getpid()}")
        new.write_text(str(path), encoding="utf-8")
        new.replace(address)
        self._socket_path = path
        return address

    def serve(self) -> None:
        """Take commands until nobody has had any for a while, or the state folder is gone."""
        if threading.active_count() > 1:
            print(f"preloading has started threads: {threading.enumerate()}", flush=True)
        gc.collect()
        gc.freeze()
        while self._is_wanted():
            ready, _, _ = select.select([self._listener], [], [], _LOOK_S)
            self._reap()
            if ready:
                connection, _ = self._listener.accept()
                with connection:
                    self._fork_keeper(connection)
        with contextlib.suppress(OSError):
            if self._address.read_text(encoding="utf-8") == str(self._socket_path):
                self._address.unlink()
            self._socket_path.unlink()

    def _is_wanted(self) -> bool:
        try:
            is_mine = self._address.read_text(encoding="utf-8") == str(self._socket_path)
        except OSError:
            return False
        if self._keepers:
            self._last_used = time.monotonic()
        return is_mine and time.monotonic() - self._last_used < self._idle_s

    def _reap(self) -> None:
        for pid in list(self._keepers):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._keepers.discard(pid)

    def _fork_keeper(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] != os.getuid():
            return
        self._last_used = time.monotonic()
        pid = os.fork()
        if pid:
            self._keepers.add(pid)
            return
        try:
            self._listener.close()
            keep(connection)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)


def main() -> None:
    """Serve under the folder named on the command line."""
    server = Server(Path(sys.argv[1]), float(sys.argv[2]))
    preload()
    server.serve()


if __name__ == "__main__":
    main()
