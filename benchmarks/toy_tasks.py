"""A task that does next to nothing, so that what is left to measure is what surrounds it.

Belongs here: that one task. Doesn't: the repository it works on or its submission (`benchmarks.toy_submissions`).
"""

from __future__ import annotations

import lsst.pipe.base.connectionTypes as ct
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct


class DoubleConnections(PipelineTaskConnections, dimensions=("instrument", "detector")):  # type: ignore[call-arg]
    """One number in, one number out."""

    number = ct.Input(
        doc="A number.",
        name="toy_number",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )
    doubled = ct.Output(
        doc="Twice the number.",
        name="toy_doubled",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )


class DoubleConfig(PipelineTaskConfig, pipelineConnections=DoubleConnections):  # type: ignore[call-arg]
    """Nothing to configure."""


class DoubleTask(PipelineTask):
    """Double a number."""

    ConfigClass = DoubleConfig
    _DefaultName = "double"

    def run(self, number: dict[str, int]) -> Struct:
        """Double a number.

        Parameters
        ----------
        number
            Holds it as ``value``.

        Returns
        -------
        result
            Struct with ``doubled``, of the same form.
        """
        return Struct(doubled={"value": 2 * number["value"]})
