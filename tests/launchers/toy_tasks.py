"""A pipeline of three tiny tasks that can be made to fail, to find no work, to hang, or to die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import lsst.pipe.base.connectionTypes as ct
from lsst.pex.config import DictField
from lsst.pipe.base import (
    NoWorkFound,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
)


class EvilData(RuntimeError):
    """What a quantum raises that was told to."""


def behave(behaviour: str | None) -> None:
    match behaviour:
        case "raise":
            raise EvilData("this exposure is evil\nand so are its children")
        case "raise otherwise":
            raise ValueError("this exposure is odd")
        case str() if behaviour.startswith("raise once "):
            first = Path(behaviour.removeprefix("raise once "))
            if not first.exists():
                first.touch()
                raise ConnectionError("the store didn't answer")
        case "no work":
            raise NoWorkFound("nothing to see here")
        case str() if behaviour.startswith("wait for "):
            while not Path(behaviour.removeprefix("wait for ")).exists():
                time.sleep(0.1)
        case "hang":
            time.sleep(600)
        case "slow":
            time.sleep(3)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)


class DoubleConnections(PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):
    number = ct.Input(
        doc="n", name="toy_number", storageClass="StructuredDataDict", dimensions=("instrument", "exposure", "detector")
    )
    doubled = ct.Output(
        doc="2 n",
        name="toy_doubled",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )


class DoubleConfig(PipelineTaskConfig, pipelineConnections=DoubleConnections):
    behaviour = DictField[str, str](
        doc="What happens, by '<exposure>-<detector>'.", keytype=str, itemtype=str, default={}
    )


class DoubleTask(PipelineTask):
    ConfigClass = DoubleConfig
    _DefaultName = "double"

    def runQuantum(self, butlerQC: QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        data_id = butlerQC.quantum.dataId
        behave(self.config.behaviour.get(f"{data_id['exposure']}-{data_id['detector']}"))
        number = butlerQC.get(inputRefs.number)
        butlerQC.put(Struct(doubled={"value": 2 * number["value"]}), outputRefs)


class SquareConnections(PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):
    doubled = ct.Input(
        doc="m",
        name="toy_doubled",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )
    squared = ct.Output(
        doc="m²",
        name="toy_squared",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )


class SquareConfig(PipelineTaskConfig, pipelineConnections=SquareConnections):
    pass


class SquareTask(PipelineTask):
    ConfigClass = SquareConfig
    _DefaultName = "square"

    def run(self, doubled: dict[str, int]) -> Struct:
        return Struct(squared={"value": doubled["value"] ** 2})


class SumConnections(PipelineTaskConnections, dimensions=("instrument", "exposure")):
    squared = ct.Input(
        doc="terms",
        name="toy_squared",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    total = ct.Output(
        doc="sum", name="toy_total", storageClass="StructuredDataDict", dimensions=("instrument", "exposure")
    )


class SumConfig(PipelineTaskConfig, pipelineConnections=SumConnections):
    pass


class SumTask(PipelineTask):
    ConfigClass = SumConfig
    _DefaultName = "sum"

    def run(self, squared: list[dict[str, int]]) -> Struct:
        return Struct(total={"value": sum(each["value"] for each in squared)})
