"""A survey simulated and delivered: files as Rucio would lay them down, and the messages that announce them.

The folder of a survey holds ``rucio/<scope>/<name>``, the files at the site, and ``delivery.json``, which lists
them and is written last. An interrupted simulation leaves whole files only, and a second call makes what is
missing.

Belongs here: what is made, in which order, by how many processes, and what is kept. Doesn't: how anything is made.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import astropy.units as u
from lsst.daf.butler import DatasetRef

from drp_tasks.camera import INSTRUMENT
from simulator.calibrations import DetectorCalibrations, calibrate_detector, normalise_flats
from simulator.header import observation_id, raw_file_name, raw_header, write_raw
from simulator.messages import Announcement, DeliveredFile, FileKind, Message, announce
from simulator.observe import observe
from simulator.source import SourceFacility, sidecar
from simulator.survey import Stream, Survey, Visit
from simulator.tables import reference_catalogue, truth_objects, truth_transients, truth_visits

RAW_SCOPE = "raw"
CALIBRATION_SCOPE = "calib"
REFERENCE_SCOPE = "refcat"
TRUTH_SCOPE = "truth"

Progress = Callable[[str, int, int], None]
"""Called with what is being made, how many are done, and of how many."""


@dataclass(frozen=True)
class Delivery:
    """A survey that lies at the site, ready to be announced.

    Parameters
    ----------
    survey
        What was simulated.
    folder
        Where it lies.
    files
        What was transferred.
    """

    survey: Survey
    folder: Path
    files: tuple[DeliveredFile, ...]

    @property
    def rucio_folder(self) -> Path:
        """Folder that the announced prefix stands for."""
        return self.folder / "rucio"

    def path(self, file: DeliveredFile) -> Path:
        """Where a file lies."""
        return self.rucio_folder / file.scope / file.name

    def messages(self, how: Announcement | None = None) -> Iterator[Message]:
        """Announce all files: the same messages in the same disorder for the same survey."""
        return announce(self.files, how or Announcement(), self.survey.generator(Stream.MESSAGES))


def simulate(survey: Survey, out: Path, processes: int = 1, progress: Progress | None = None) -> Delivery:
    """Simulate a survey and lay it down as delivered, or find it finished.

    Parameters
    ----------
    survey
        What to simulate.
    out
        Folder for this survey alone.
    processes
        How many processes draw pixels; the result does not depend on it. (Images of calibrations are the same to the
        bit, but their files bear the time at which ``lsst.images`` wrote them.)
    progress
        Called as things are done.

    Returns
    -------
    delivery : `Delivery`
        All files, in a fixed order.

    Raises
    ------
    ValueError
        If the folder holds another survey, or one simulated by another version of the code.
    """
    out = out.resolve()
    report = progress or (lambda *_: None)
    _claim(out, survey)
    listing = out / "delivery.json"
    if not listing.exists():
        _draw(survey, out, processes, report)
        files = _deliver(survey, out, report)
        _write_whole(listing, json.dumps([asdict(file) for file in files], indent=1))
        shutil.rmtree(out / "work")
    rows = json.loads(listing.read_text())
    return Delivery(survey, out, tuple(DeliveredFile(**{**row, "kind": FileKind(row["kind"])}) for row in rows))


def _claim(out: Path, survey: Survey) -> None:
    """Mark the folder as this survey's."""
    mark = out / "survey.json"
    if mark.exists():
        digest = json.loads(mark.read_text())["digest"]
        if digest != survey.digest:
            raise ValueError(f"{out} holds survey {digest}, not {survey.name} ({survey.digest}); take another folder.")
    else:
        out.mkdir(parents=True, exist_ok=True)
        _write_whole(mark, json.dumps({"digest": survey.digest, **asdict(survey)}, indent=1))


def _draw(survey: Survey, out: Path, processes: int, report: Progress) -> None:
    """Make all pixels that are not there yet, detector by detector, in any order."""
    raws, calibrations = out / "work" / "raw", out / "work" / "calib"
    for folder in (raws, calibrations):
        folder.mkdir(parents=True, exist_ok=True)
    tasks: list[Callable[[], None]] = [
        partial(_calibrate_to, survey, detector.id, calibrations / f"{detector.id}.npz")
        for detector in survey.detectors
        if not (calibrations / f"{detector.id}.npz").exists()
    ]
    tasks += [
        partial(_observe_to, survey, visit, detector.id, raws / raw_file_name(visit, detector.id))
        for visit in survey.visits
        for detector in survey.detectors
        if not (raws / raw_file_name(visit, detector.id)).exists()
    ]
    if processes == 1:
        for done, task in enumerate(tasks, start=1):
            task()
            report("raws and calibrations", done, len(tasks))
        return
    # Forks of a clean server inherit no threads and no open connections, and import the libraries once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for done, future in enumerate(as_completed([pool.submit(task) for task in tasks]), start=1):
            future.result()
            report("raws and calibrations", done, len(tasks))


def _observe_to(survey: Survey, visit: Visit, detector_id: int, path: Path) -> None:
    write_raw(path, observe(survey, visit, detector_id), raw_header(survey, visit, detector_id))


def _calibrate_to(survey: Survey, detector_id: int, path: Path) -> None:
    calibrate_detector(survey, detector_id).save(path)


def _deliver(survey: Survey, out: Path, report: Progress) -> list[DeliveredFile]:
    """Turn pixels into what travels: zips, single raws, dimensions and products."""
    source = SourceFacility(out / "work" / "source", survey.skymap)
    rucio = out / "rucio"
    try:
        files = []
        for done, visit in enumerate(survey.visits, start=1):
            files += _deliver_visit(survey, visit, out / "work" / "raw", rucio, source)
            report("exposures delivered", done, survey.visit_count)
        for scope, ref in _products(survey, out / "work" / "calib", source):
            file = source.path_of(ref)
            name = f"{INSTRUMENT}/{ref.datasetType.name}/{file.name}"
            file.rename(_room_for(rucio / scope / name))
            files.append(_delivered(rucio, FileKind.PRODUCT, scope, name, sidecar(ref)))
    finally:
        source.close()
    return files


def _deliver_visit(
    survey: Survey, visit: Visit, raws: Path, rucio: Path, source: SourceFacility
) -> list[DeliveredFile]:
    """Deliver one exposure, as a zip or as single files, each with a file of dimensions."""
    paths = [raws / raw_file_name(visit, detector.id) for detector in survey.detectors]
    refs = source.take(paths)
    folder = f"{INSTRUMENT}/{visit.day_obs}/{observation_id(visit)}"
    dimensions = f"{folder}/{observation_id(visit)}_dimensions.yaml"
    source.write_dimensions(refs, _room_for(rucio / RAW_SCOPE / dimensions))
    files = [_delivered(rucio, FileKind.DIMENSIONS, RAW_SCOPE, dimensions)]
    if visit.id not in _single_file_visits(survey):
        name = f"{folder}/{observation_id(visit)}.zip"
        source.write_zip(refs, rucio / RAW_SCOPE / name)
        return [*files, _delivered(rucio, FileKind.ZIP, RAW_SCOPE, name)]
    for path, ref in zip(paths, refs, strict=True):
        name = f"{folder}/{path.name}"
        shutil.copyfile(path, rucio / RAW_SCOPE / name)
        files.append(_delivered(rucio, FileKind.RAW, RAW_SCOPE, name, sidecar(ref)))
    return files


def _single_file_visits(survey: Survey) -> frozenset[int]:
    """Visits that travel as single files: spread evenly over the survey."""
    if survey.single_file_visits == 0:
        return frozenset()
    step = survey.visit_count // survey.single_file_visits
    return frozenset(visit.id for visit in survey.visits[step // 2 :: step][: survey.single_file_visits])


def _products(survey: Survey, calibrations: Path, source: SourceFacility) -> Iterator[tuple[str, DatasetRef]]:
    """Put calibrations, reference catalogue and truth at the source, with the scope in which each travels."""
    combined = {
        detector.id: DetectorCalibrations.load(calibrations / f"{detector.id}.npz") for detector in survey.detectors
    }
    flats = normalise_flats(combined)
    for number, detector in combined.items():
        put = partial(source.put_detector_image, detector=number)
        yield CALIBRATION_SCOPE, put("bias", detector.bias_adu, u.adu)
        yield CALIBRATION_SCOPE, put("dark", detector.dark_adu_s, u.adu / u.s)
        yield CALIBRATION_SCOPE, put("defects", detector.defects(flats[number]), None)
        for physical_filter, flat in flats[number].items():
            yield CALIBRATION_SCOPE, put("flat", flat, None, physical_filter=physical_filter)
    for ref in source.put_reference_catalogue(reference_catalogue(survey)):
        yield REFERENCE_SCOPE, ref
    yield TRUTH_SCOPE, source.put_tract_truth("truth_object", truth_objects(survey))
    yield TRUTH_SCOPE, source.put_tract_truth("truth_transient", truth_transients(survey))
    yield TRUTH_SCOPE, source.put_instrument_truth("truth_visit", truth_visits(survey))


def _delivered(rucio: Path, kind: FileKind, scope: str, name: str, reference: str = "") -> DeliveredFile:
    content = (rucio / scope / name).read_bytes()
    return DeliveredFile(
        kind=kind,
        scope=scope,
        name=name,
        size=len(content),
        adler32=f"{zlib.adler32(content):08x}",
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        sidecar=reference,
    )


def _room_for(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_whole(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.rename(path)
