"""PostgreSQL: a cluster of its own under a folder, reached over loopback with passwords from a file.

The system's own clusters are never touched. What is committed survives `Service.kill`, but not the machine: nothing
waits for the disk.

Belongs here: the server's process, its databases, roles and the file of passwords. Doesn't: what is in a database.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from services.loopback import CONNECT_TIMEOUT_S, LOOPBACK, LoopbackServer
from services.service import ServiceError

OWNER = "drp"
"""The role that owns the databases; no superuser."""

SUPERUSER = "postgres"
_PROGRAMS = "/usr/lib/postgresql/*/bin"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A crash of the server loses nothing by these: what it has written, the kernel has.
    "fsync": "off",
    "full_page_writes": "off",
}


class PostgreSQL(LoopbackServer):
    """A PostgreSQL server.

    Parameters
    ----------
    folder
        Everything of it, the data included.
    settings
        Of the server, over those given here.
    """

    name: ClassVar[str] = "postgresql"
    packages: ClassVar[tuple[str, ...]] = ("postgresql",)
    start_timeout_s: ClassVar[float] = 60.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # SIGTERM waits for clients to go

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.settings = {**_SETTINGS, **(settings or {})}

    @property
    def passfile(self) -> Path:
        """Passwords of both roles as libpq reads them, once `PGPASSFILE` names the file."""
        return self.folder / "passwords"

    @property
    def access(self) -> str:
        """The variable that names the file of passwords."""
        return f"PGPASSFILE={self.passfile}"

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    def url(self, database: str, driver: str | None = "psycopg") -> str:
        """Give a database's SQLAlchemy URL, without a password: libpq finds that through ``PGPASSFILE``.

        Parameters
        ----------
        database
            Its name.
        driver
            SQLAlchemy's name of the driver; none: SQLAlchemy's own choice.
        """
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{OWNER}@{self.address}/{database}"

    def prepare(self) -> None:
        """Make the cluster, unless it is there."""
        super().prepare()
        if self.data.exists():
            return
        initdb, postgres = self._program("initdb"), self._program("postgres")
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, OWNER)}
        self.passfile.touch(mode=0o600)
        self.passfile.write_text("".join(f"{LOOPBACK}:*:*:{role}:{word}\n" for role, word in passwords.items()))
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(passwords[SUPERUSER])
        try:
            locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
            access = ["--auth=scram-sha-256", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
            unfinished.mkdir(mode=0o700)
            if os.geteuid() == 0:
                shutil.chown(unfinished, SUPERUSER)
            self._run([initdb, f"--pgdata={unfinished}", "--no-sync", *locale, *access])
        finally:
            password_file.unlink()
        # Every database is made from template1, so that each has the extension, whoever makes it.
        statements = f"CREATE EXTENSION btree_gist;\nCREATE ROLE {OWNER} LOGIN PASSWORD '{passwords[OWNER]}';\n"
        self._run([postgres, "--single", "-j", "-D", str(unfinished), "template1"], statements)
        unfinished.rename(self.data)

    def command(self) -> Sequence[str]:
        """Serve the cluster; as its own user where the starter is root, which the server refuses to be."""
        settings = [f"--{name}={value}" for name, value in {**self.settings, "port": str(self.port)}.items()]
        return [*_unprivileged(), self._program("postgres"), "-D", str(self.data), *settings]

    def environment(self) -> Mapping[str, str]:
        """Say everything in English."""
        return {"LC_ALL": "C.UTF-8"}

    def is_ready(self) -> bool:
        """Whether it answers a query."""
        if self.pid is None:
            return False
        try:
            with self.connect("postgres") as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database: str, role: str = OWNER) -> psycopg.Connection[tuple[object, ...]]:
        """Connect to a database; every statement is a transaction of its own.

        Parameters
        ----------
        database
            Its name.
        role
            Who connects.
        """
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            dbname=database,
            user=role,
            passfile=str(self.passfile),
            connect_timeout=int(CONNECT_TIMEOUT_S) + 1,
            autocommit=True,
        )

    def create_database(self, database: str) -> None:
        """Make a database, with ``btree_gist``, that the role `OWNER` owns; one that is there stays as it is.

        Parameters
        ----------
        database
            Its name.
        """
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(OWNER))
        try:
            with self.connect("postgres", SUPERUSER) as connection:
                connection.execute(statement)
        except psycopg.errors.DuplicateDatabase:
            return

    def drop_database(self, database: str) -> None:
        """Remove a database, whoever is connected to it.

        Parameters
        ----------
        database
            Its name.
        """
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
        with self.connect("postgres", SUPERUSER) as connection:
            connection.execute(statement)

    def _program(self, name: str) -> str:
        return self.program(name, _PROGRAMS)

    def _run(self, command: Sequence[str], text: str = "") -> None:
        done = subprocess.run(
            [*_unprivileged(), *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, **self.environment()},
        )
        # The server's single-user mode ends well whatever its statements did.
        if done.returncode or "ERROR:" in done.stderr:
            raise ServiceError(f"{self.name}: {Path(command[0]).name} failed in {self.folder}: {done.stderr.strip()}")


def _unprivileged() -> Sequence[str]:
    if os.geteuid() != 0:
        return ()
    # The capability lets the server reach its data wherever they are, such as below a folder that is root's alone.
    capability = "-all,+dac_override"
    user = [f"--reuid={SUPERUSER}", f"--regid={SUPERUSER}", "--init-groups"]
    return ["setpriv", *user, f"--inh-caps={capability}", f"--ambient-caps={capability}"]
