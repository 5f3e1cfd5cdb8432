"""Two tiny tasks, the first of which hangs, takes its time or takes memory where it is told to.

Belongs here: those tasks. Doesn't: what they are submitted for (`benchmarks.soak.launcher_trials`).
"""

from __future__ import annotations

import time
from typing import Any

import lsst.pipe.base.connectionTypes as ct
from lsst.pex.config import DictField
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, QuantumContext, Struct

from benchmarks.toy_tasks import DoubleConfig, DoubleConnections, DoubleTask

_BYTES_PER_MB = 2**20
_PAGE = 4096


class TroubledConfig(DoubleConfig, pipelineConnections=DoubleConnections):  # type: ignore[call-arg]
    """Who gives trouble."""

    trouble = DictField[int, str](
        doc="By detector: 'sleep SECONDS' or 'memory MB', before the work is done.",
        keytype=int,
        itemtype=str,
        default={},
    )


class TroubledTask(DoubleTask):
    """Double a number, with trouble."""

    ConfigClass = TroubledConfig

    def runQuantum(self, butlerQC: QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Give trouble first.

        Parameters
        ----------
        butlerQC, inputRefs, outputRefs
            As for every task.
        """
        detector = int(butlerQC.quantum.dataId["detector"])
        kind, _, amount = self.config.trouble.get(detector, "").partition(" ")
        if kind == "sleep":
            time.sleep(float(amount))
        elif kind == "memory":
            held = bytearray(int(amount) * _BYTES_PER_MB)
            held[::_PAGE] = b"x" * len(held[::_PAGE])
        super().runQuantum(butlerQC, inputRefs, outputRefs)


class SquareConnections(PipelineTaskConnections, dimensions=("instrument", "detector")):  # type: ignore[call-arg]
    """One doubled number in, its square out."""

    doubled = ct.Input(
        doc="A doubled number.",
        name="toy_doubled",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )
    squared = ct.Output(
        doc="Its square.",
        name="toy_squared",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )


class SquareConfig(PipelineTaskConfig, pipelineConnections=SquareConnections):  # type: ignore[call-arg]
    """Nothing to configure."""


class SquareTask(PipelineTask):
    """Square a number."""

    ConfigClass = SquareConfig
    _DefaultName = "square"

    def run(self, doubled: dict[str, int]) -> Struct:
        """Square a number.

        Parameters
        ----------
        doubled
            Holds it as ``value``.

        Returns
        -------
        result
            Struct with ``squared``, of the same form.
        """
        return Struct(squared={"value": doubled["value"] ** 2})
