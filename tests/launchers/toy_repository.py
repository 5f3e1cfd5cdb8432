"""A Butler repository with numbers instead of images, and requests to process them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from astropy.time import Time, TimeDelta
from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, FileDataset, Timespan

from launchers.submission import StepRequest, SubmissionKey

HERE = Path(__file__).parent
DAYS = (20261101, 20261102)


def exposure_id(day: int, number: int) -> int:
    return day * 100_000 + number


def make_repository(root: Path, *, exposures: int = 2, detectors: int = 2) -> str:
    """Make a repository with ``exposures`` a night for two nights, alternately in g and r."""
    Butler.makeRepo(str(root))
    with Butler.from_config(str(root), writeable=True) as butler:
        registry = butler.registry
        registry.syncDimensionData(
            "instrument",
            {
                "name": "ToyCam",
                "class_name": "toy",
                "detector_max": 1000,
                "visit_max": 2**40,
                "exposure_max": 2**40,
                "visit_system": 0,
            },
        )
        for band in "gr":
            registry.syncDimensionData("physical_filter", {"instrument": "ToyCam", "name": f"{band}_1", "band": band})
        for detector in range(detectors):
            registry.syncDimensionData(
                "detector", {"instrument": "ToyCam", "id": detector, "full_name": f"D{detector}"}
            )
        number_type = DatasetType(
            "toy_number",
            {"instrument", "exposure", "detector"},
            "StructuredDataDict",
            universe=butler.dimensions,
        )
        registry.registerDatasetType(number_type)
        butler.collections.register("numbers")
        files = []
        for day in DAYS:
            for number in range(1, exposures + 1):
                _add_exposure(butler, day, number)
                for detector in range(detectors):
                    data_id = {"instrument": "ToyCam", "exposure": exposure_id(day, number), "detector": detector}
                    file = Path(f"{root}_arrived") / f"{data_id['exposure']}_{detector}.yaml"
                    file.parent.mkdir(exist_ok=True)
                    file.write_text(f"value: {number + detector}\n")
                    ref = DatasetRef(
                        number_type, DataCoordinate.standardize(data_id, universe=butler.dimensions), "numbers"
                    )
                    files.append(FileDataset(file, [ref], formatter="lsst.daf.butler.formatters.yaml.YamlFormatter"))
        # As raws are: outside the repository, where only its records find them.
        butler.ingest(*files, transfer="direct")
    return str(root)


def _add_exposure(butler: Butler, day: int, number: int) -> None:
    text = str(day)
    noon = Time(f"{text[:4]}-{text[4:6]}-{text[6:]}T12:00:00", scale="tai")
    begin = noon + TimeDelta(3600.0 * number, format="sec")
    name = f"T{day}_{number}"
    common = {"instrument": "ToyCam"}
    registry = butler.registry
    registry.syncDimensionData(
        "day_obs", common | {"id": day, "timespan": Timespan(noon, noon + TimeDelta(86400.0, format="sec"))}
    )
    registry.syncDimensionData("group", common | {"name": name})
    registry.syncDimensionData(
        "exposure",
        common
        | {
            "id": exposure_id(day, number),
            "obs_id": name,
            "physical_filter": "gr"[number % 2] + "_1",
            "group": name,
            "day_obs": day,
            "timespan": Timespan(begin, begin + TimeDelta(30.0, format="sec")),
        },
    )


def make_request(root: str, folder: Path, **changes: Any) -> StepRequest:
    """Ask for everything in a repository, or for what ``changes`` say."""
    request = StepRequest(
        key=SubmissionKey("toy", "step1", tuple(map(str, DAYS))),
        butler=root,
        pipeline=f"{HERE / 'toy_pipeline.yaml'}#step1",
        input_collections=("numbers",),
        output_chain="toy",
        data_query="instrument = 'ToyCam'",
        folder=folder,
        partition_dimension="day_obs",
        bps={"localCores": 2, "computeSite": "local"},
    )
    return dataclasses.replace(request, **changes)
