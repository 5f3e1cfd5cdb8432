"""MariaDB: the database that Slurm's accounting keeps its records in; nothing else here uses it.

Belongs here: the server's process, its databases and their owner. Doesn't: what is in a database.
"""

from __future__ import annotations

import getpass
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from services.loopback import LOOPBACK, LoopbackServer
from services.service import ServiceError

OWNER = "drp"
"""The user that owns the databases."""


class MariaDB(LoopbackServer):
    """A MariaDB server; its administrator is the user who started it, through the socket in its folder.

    Parameters
    ----------
    folder
        Everything of it, the data included.
    """

    name: ClassVar[str] = "mariadb"
    packages: ClassVar[tuple[str, ...]] = ("mariadb-server",)
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 20.0

    @property
    def data(self) -> Path:
        """The server's own folder."""
        return self.folder / "data"

    @property
    def password(self) -> str:
        """The owner's password, made when first asked for."""
        kept = self.folder / "password"
        if not kept.exists():
            kept.touch(mode=0o600)
            kept.write_text(secrets.token_urlsafe(24), encoding="ascii")
        return kept.read_text(encoding="ascii")

    def prepare(self) -> None:
        """Make the system tables, unless they are there."""
        super().prepare()
        if self.data.exists():
            return
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        made = subprocess.run(
            [
                self.program("mariadb-install-db"),
                "--no-defaults",
                f"--user={getpass.getuser()}",
                f"--datadir={unfinished}",
                f"--auth-root-socket-user={getpass.getuser()}",
                "--skip-test-db",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServiceError(f"{self.name}: no system tables could be made in {unfinished}: {made.stdout.strip()}")
        unfinished.rename(self.data)

    def command(self) -> Sequence[str]:
        """Serve; small, and without waiting for the disk."""
        return [
            self.program("mariadbd"),
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--datadir={self.data}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            f"--socket={self._socket}",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--performance-schema=0",
            "--skip-log-bin",
        ]

    def is_ready(self) -> bool:
        """Whether it answers a statement."""
        return self._execute("SELECT 1;").returncode == 0

    def create_database(self, database: str) -> None:
        """Make a database that `OWNER` owns; one that is there stays as it is.

        Parameters
        ----------
        database
            Its name.
        """
        statements = f"CREATE DATABASE IF NOT EXISTS {database};\n"
        for host in (LOOPBACK, "localhost"):
            user = f"'{OWNER}'@'{host}'"
            statements += f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{self.password}';\n"
            statements += f"GRANT ALL ON {database}.* TO {user};\n"
        done = self._execute(statements)
        if done.returncode:
            raise ServiceError(f"{self.name}: {database} could not be made: {done.stderr.strip()}")

    @property
    def _socket(self) -> Path:
        return self.folder / "socket"

    def _execute(self, statements: str) -> subprocess.CompletedProcess[str]:
        client = [self.program("mariadb"), "--no-defaults", f"--socket={self._socket}"]
        return subprocess.run(client, input=statements, capture_output=True, text=True, check=False)
