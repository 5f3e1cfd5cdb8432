"""Installing the Debian packages that the services name: ``python -m services.installation [PACKAGE…]``.

No package may start a server of its own, or make a database cluster: the services start their servers themselves.

Belongs here: asking what is missing, and apt. Doesn't: which packages (each service's module), or what pip and Maven
bring.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.catalogue import packages

_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")


def missing(wanted: Sequence[str]) -> Sequence[str]:
    """Give those of some packages that are not installed.

    Parameters
    ----------
    wanted
        Names of Debian packages.
    """
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,  # it complains of each package that it has never heard of
    )
    installed = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def install(wanted: Sequence[str]) -> None:
    """Install packages, and start nothing.

    Parameters
    ----------
    wanted
        Names of Debian packages.
    """
    environment = {**os.environ, **_QUIET}
    if "postgresql" in wanted and not _NO_CLUSTER.exists():
        _NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        _NO_CLUSTER.write_text("create_main_cluster = false\n")
    with _no_server_starts():
        _apt(["update", "-qq"], environment)
        _apt(["install", "-y", "-qq", "--no-install-recommends", *wanted], environment)


@contextmanager
def _no_server_starts() -> Iterator[None]:
    if _POLICY.exists():  # the machine's own
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _apt(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(["apt-get", *arguments], check=True, env=environment)


def main() -> int:
    """Install what is missing of the services' packages and of those on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="needed besides those of the services")
    needed = [*packages(), *parser.parse_args().packages]
    if shutil.which("dpkg-query") is None:
        print(f"this machine is no Debian; install what these packages hold: {' '.join(needed)}", file=sys.stderr)
        return 1
    wanted = missing(needed)
    if not wanted:
        return 0
    if os.geteuid() != 0:
        print(f"these packages are missing, and only root can install them: {' '.join(wanted)}", file=sys.stderr)
        return 1
    print(f"installing {' '.join(wanted)}")
    try:
        install(wanted)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)} failed with exit status {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
