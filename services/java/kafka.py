"""Running one of Kafka's Java programs from jars that Maven brings once a machine and version.

Belongs here: the cache of jars, and a program's command line. Doesn't: what the programs are told
(`services.apache_kafka`, `services.mirror_maker`).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.service import Service, ServiceError

PACKAGES = ("maven",)
"""Maven brings a Java along where there is none."""
CACHE_VARIABLE = "DRP_CACHE"
"""Environment variable that names the folder of what is fetched once a machine."""

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"


def java_command(
    service: Service, program: str, arguments: Sequence[str], *, heap_mb: int, enduring: bool = False
) -> Sequence[str]:
    """Compose the command line of a Java program; it is run without a shell, so that its pid is its own.

    Parameters
    ----------
    service
        For whom: errors name it.
    program
        The class.
    arguments
        Its own.
    heap_mb
        The most memory its objects get.
    enduring
        Whether it is meant for much work: it takes twice as long to start, and half as long for the work afterwards.
    """
    small = [f"-Xmx{heap_mb}m", "-Xms64m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
    if not enduring:
        small.append("-XX:TieredStopAtLevel=1")
    options = [f"-Dlog4j2.configurationFile={_HERE / 'log4j2.yaml'}", "-Djava.awt.headless=true"]
    return [service.program("java"), *small, *options, "-cp", f"{jars(service)}/*", program, *arguments]


def jars(service: Service) -> Path:
    """Give the folder of jars, which are fetched when this machine doesn't have them.

    Parameters
    ----------
    service
        For whom: errors name it.

    Raises
    ------
    ServiceError
        Maven is not installed or fails.
    """
    folder = jars_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(service, folder)
    return folder


@functools.cache
def jars_folder() -> Path:
    """Where the jars of this version are, or will be."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lsst-uk-drp"
    version = hashlib.blake2s(_POM.read_bytes(), digest_size=4).hexdigest()
    return Path(os.environ.get(CACHE_VARIABLE, usual)) / f"kafka-{version}"


def _fetch(service: Service, folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    what = ["--file", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
    done = subprocess.run(
        [service.program("mvn"), "--batch-mode", "--quiet", *what], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(f"{service.name}: Maven brought no jars for {_POM}: {done.stdout.strip()}")
    unfinished.rename(folder)
