"""Servers that all workers of a test run share: each is started by whoever needs it first, and ended once, after all.

Databases and topics are of the test's own; servers are not.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services import together
from services.service import Service

MARK = "DRP_TESTS_IN"
"""Environment variable by which the processes of a test run are known."""


class SharedServices:
    """The servers of one test run: those of the catalogue, in the run's folder.

    Parameters
    ----------
    run_folder
        The folder of the run, which is the same for all its workers.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / "shared"

    def start[S: Service](self, service: S) -> S:
        """Start one of them as a process of the run, rather than of the worker that asks first."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, str(self.run_folder))
            return service.start()

    def stop(self) -> None:
        """End all of them that run."""
        if self.folder.exists():
            for _, ended in together.stop(self.folder):
                ended.result()


def run_folder(config: pytest.Config) -> Path:
    """Where the whole test run has its folder, asked by a worker or by the process that leads the workers."""
    base: Path = config._tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
