"""A release made up of small tables and images, in a Butler of its own, for the tests of validation.

Belongs here: products with the names and columns of the small DRP, full of numbers that look like a sky.
Doesn't: running any task.
"""

import dataclasses
from pathlib import Path

import astropy.units as u
import healsparse
import hpgeom
import numpy as np
import pytest
from astropy.table import Table
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan
from lsst.daf.butler import Config as ButlerSettings
from lsst.pex.config import Config, Field
from lsst.utils.packages import Packages

from drp_tasks.images import masked_image, single_plane
from drp_tasks.instrument import SimCam
from drp_tasks.skymap import TangentSkyMap, register_skymap

CHAIN = "demo"
RUN = "demo/step5a/0123abcd/1"
OLDER_RUN = "demo/step5a/0123abcd/0"
BANDS = {"g": "g_6", "r": "r_57", "i": "i_39"}
DAYS = (20261101, 20261102)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of a release is made up."""

    patch_px: int = 48
    stars: int = 60
    detectors: int = 4
    visits_per_band_and_day: int = 1
    detector_px: int = 64


class MadeUpConfig(Config):
    """A configuration with one setting."""

    sigma = Field("Detection threshold.", float, default=5.0)


@dataclasses.dataclass(frozen=True)
class MadeUpRelease:
    """The repository's Butler, its skymap and the stars of its sky."""

    butler: Butler
    skymap: TangentSkyMap
    visits: dict[int, str]

    def put(self, value, name, dimensions, storage, run=RUN, **data_id):
        kind = DatasetType(name, dimensions, storage, universe=self.butler.dimensions)
        self.butler.registry.registerDatasetType(kind)
        return self.butler.put(value, kind, data_id, run=run)


def make_release(root: Path, size: Size = Size()) -> MadeUpRelease:
    """Fill a new repository with every product that validation reads."""
    formatter = "drp_tasks.healsparse_formatter.HealSparseMapFormatter"
    Butler.makeRepo(str(root), config=ButlerSettings({"datastore": {"formatters": {"HealSparseMap": formatter}}}))
    butler = Butler.from_config(str(root), writeable=True)
    SimCam().register(butler.registry)
    skymap = TangentSkyMap("sim_v1", ((53.1, -28.1),), patches_x=2, patches_y=1, patch_px=size.patch_px, border_px=4)
    register_skymap(butler, skymap)
    for run in (RUN, OLDER_RUN):
        butler.collections.register(run, CollectionType.RUN)
    butler.collections.register(CHAIN, CollectionType.CHAINED)
    butler.collections.redefine_chain(CHAIN, [RUN, OLDER_RUN])
    release = MadeUpRelease(butler, skymap, _register_visits(butler, skymap, size))
    rng = np.random.default_rng(7)
    width, height = 2 * size.patch_px, size.patch_px
    sky = Table(
        {
            "x": rng.uniform(2, width - 3, size.stars),
            "y": rng.uniform(2, height - 3, size.stars),
            "r": rng.triangular(17, 23, 23.5, size.stars),
            "g_r": rng.uniform(0.2, 1.3, size.stars),
        }
    )
    sky["ra"], sky["dec"] = skymap.wcs(0).pixel_to_world_values(sky["x"], sky["y"])
    sky["r_i"] = 0.483 * sky["g_r"] - 0.042 + rng.normal(0, 0.015, size.stars)
    sky["g"], sky["i"] = sky["r"] + sky["g_r"], sky["r"] - sky["r_i"]
    _put_metrics(release)
    _put_coadds(release, sky, rng)
    _put_depth(release)
    _put_objects(release, sky, rng)
    _put_visits(release, sky, size, rng)
    _put_difference(release, size, rng)
    _put_bookkeeping(release)
    return release


def _register_visits(butler, skymap, size):
    registry, visits = butler.registry, {}
    region = skymap.tract_region(0)
    for day in DAYS:
        registry.insertDimensionData("day_obs", {"instrument": "SimCam", "id": day, "timespan": None})
        begin = Time(f"{day // 10000}-{day // 100 % 100:02d}-{day % 100:02d}T23:00:00", scale="tai")
        for sequence in range(len(BANDS) * size.visits_per_band_and_day):
            band = list(BANDS)[sequence % len(BANDS)]
            visit = day * 100000 + sequence + 1
            start = begin + sequence * 40 * u.s
            record = {
                "instrument": "SimCam",
                "id": visit,
                "name": str(visit),
                "physical_filter": BANDS[band],
                "day_obs": day,
                "region": region,
                "timespan": Timespan(start, start + 30 * u.s),
            }
            registry.insertDimensionData("visit", record)
            for detector in range(size.detectors):
                place = {"instrument": "SimCam", "visit": visit, "detector": detector, "region": region}
                registry.insertDimensionData("visit_detector_region", place)
            visits[visit] = band
    return visits


def _metric_table(rows):
    names = ("metric", "band", "value", "unit", "n", "measurable", "detail")
    return Table(rows=rows, names=names)


def _put_metrics(release):
    tables = {
        "calibration_metrics": [("PA1", b, 6.5 + k, "mmag", 120, True, "S/N > 200") for k, b in enumerate("rgi")]
        + [("AM3", "r", np.nan, "mas", 0, False, "the field is smaller than 200 arcmin")],
        "object_metrics": [("wPerp", "", 16.2, "mmag", 48, True, "")],
        "truth_metrics": [
            (f"completeness_{low}_{low + 1}", "r", 100 / (1 + np.exp(2.2 * (low - 23.2))), "%", 40, True, "")
            for low in range(18, 26)
        ]
        + [(f"fluxPullSigma_{low}_{low + 2}", band, 1.1, "", 30, True, "") for low in (17, 19, 21) for band in "gri"]
        + [("diaCompleteness_5_8", "", 70.0, "%", 20, True, ""), ("diaCompleteness_8", "", 96.0, "%", 50, True, "")]
        + [("m50", "r", 23.7, "mag", 300, True, ""), ("m90", "r", 22.7, "mag", 300, True, "")]
        + [("purity", "", 98.7, "%", 300, True, "")],
    }
    for name, rows in tables.items():
        dimensions = ("skymap", "tract") if name == "object_metrics" else ("instrument", "skymap", "tract")
        data_id = {"skymap": "sim_v1", "tract": 0} | ({} if name == "object_metrics" else {"instrument": "SimCam"})
        release.put(_metric_table(rows), name, dimensions, "ArrowAstropy", **data_id)
    stale = _metric_table([("PA1", "r", 99.0, "mmag", 3, True, "")])
    where = {"instrument": "SimCam", "skymap": "sim_v1", "tract": 0}
    release.put(stale, "calibration_metrics", tuple(where), "ArrowAstropy", OLDER_RUN, **where)


def _nanojansky(magnitude):
    return 10 ** (-0.4 * (np.asarray(magnitude) - 31.4))


def _draw_stars(shape, x, y, flux, noise, rng):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(0, noise, shape)
    for xs, ys, f in zip(x, y, flux, strict=True):
        image += f / (2 * np.pi * 1.9**2) * np.exp(-((columns - xs) ** 2 + (rows - ys) ** 2) / (2 * 1.9**2))
    return image


def _put_coadds(release, sky, rng):
    for band in BANDS:
        for patch in range(2):
            box = release.skymap.outer_box(patch)
            x0, y0 = box.x.start, box.y.start
            noise = 12.0
            pixels = _draw_stars(box.shape, sky["x"] - x0, sky["y"] - y0, _nanojansky(sky[band]), noise, rng)
            columns = np.broadcast_to(np.arange(box.shape[1]), box.shape)
            place = {"skymap": "sim_v1", "tract": 0, "patch": patch, "band": band}
            wcs = release.skymap.wcs(0)
            coadd = masked_image(
                pixels.astype(np.float32),
                np.full(box.shape, noise**2, np.float32),
                {"NO_DATA": columns < 4, "INTRP": columns == 3},
                unit=u.nJy,
                wcs=wcs,
                start_xy=(x0, y0),
            )
            release.put(coadd, "deep_coadd", tuple(place), "MaskedImageV2", **place)
            counts = np.broadcast_to(np.linspace(0, 4, box.shape[1]).round(), box.shape).astype(np.float32)
            image = single_plane(counts.copy(), wcs=wcs, start_xy=(x0, y0))
            release.put(image, "deep_coadd_n_image", tuple(place), "ImageV2", **place)


def _put_depth(release):
    """Put a map that is deeper in the east, of the tract's western three quarters and of sky far away."""
    nside = 2**17
    box = release.skymap.tract_region(0).getBoundingBox()
    west, width = box.getLon().getA().asDegrees(), box.getLon().getSize().asDegrees()
    south, height = box.getLat().getA().asDegrees(), box.getLat().getSize().asDegrees()
    ra, dec = np.meshgrid(west + width * np.linspace(0, 0.75, 60), south + height * np.linspace(0, 1, 60))
    for number, band in enumerate(BANDS):
        depth = healsparse.HealSparseMap.make_empty(64, nside, np.float32)
        pixels = np.unique(hpgeom.angle_to_pixel(nside, ra, dec))
        east = hpgeom.pixel_to_angle(nside, pixels)[0] - west
        depth.update_values_pix(pixels, (24.0 + number + east).astype(np.float32))
        depth.update_values_pos(np.array([200.0]), np.array([60.0]), np.array([20.0], np.float32))
        place = {"skymap": "sim_v1", "band": band}
        release.put(depth, "deep_coadd_depth_map", tuple(place), "HealSparseMap", **place)


def _put_objects(release, sky, rng):
    n = len(sky)
    objects = Table(
        {
            "objectId": np.arange(n),
            "refExtendedness": rng.normal(0, 0.008, n),
            "detect_isPrimary": np.arange(n) % 10 != 0,
        }
    )
    for band in BANDS:
        objects[f"{band}_psfFlux"] = _nanojansky(sky[band]) * (1 + rng.normal(0, 0.01, n)) * u.nJy
        objects[f"{band}_psfFluxErr"] = np.full(n, 15.0) * u.nJy
    release.put(objects, "object", ("skymap", "tract"), "ArrowAstropy", skymap="sim_v1", tract=0)


def _put_visits(release, sky, size, rng):
    associations = []
    for k, (visit, band) in enumerate(release.visits.items()):
        n = len(sky)
        detector = np.arange(n) % size.detectors
        source = (visit * 1000 + detector) * 100000 + np.arange(n)
        flux = _nanojansky(sky[band])
        moments = {name: rng.normal(0, 0.006, n) for name in ("starE1", "starE2", "psfE1", "psfE2")}
        stars = Table(
            {
                "sourceId": source,
                "visit": np.full(n, visit),
                "detector": detector.astype(np.int32),
                "band": np.full(n, band),
                "x": rng.uniform(0, size.detector_px, n),
                "y": rng.uniform(0, size.detector_px, n),
                "ra": sky["ra"] + (rng.normal(0, 5, n) + 2 * (k % 3 - 1)) / 3.6e6 / np.cos(np.radians(sky["dec"])),
                "dec": sky["dec"] + rng.normal(0, 5, n) / 3.6e6,
                "psfFlux": flux * (1 + rng.normal(0, 0.006, n) + 0.003 * (k % 3 - 1)),
                "psfFluxErr": np.full(n, 25.0),
                "flag": np.arange(n) % 17 == 0,
                "calibPsfUsed": np.asarray(sky[band]) < 22.5,
                "starSize": 2.0 * (1 + rng.normal(0.001, 0.006, n)),
                "psfSize": np.full(n, 2.0),
                **moments,
            }
        )
        place = {"instrument": "SimCam", "visit": visit}
        release.put(stars, "recalibrated_star", tuple(place), "ArrowAstropy", **place)
        associations.append((source, np.arange(n)))
        detectors = np.arange(size.detectors)
        summary = Table(
            {
                "visit": np.full(size.detectors, visit),
                "detector": detectors,
                "band": np.full(size.detectors, band),
                "mjdMid": np.full(size.detectors, 61345.95 + 0.0005 * k + (visit // 100000 - DAYS[0])),
                "psfFwhm": 0.8 + 0.1 * (k % 4) + 0.02 * detectors,
                "zeroPoint": 31.5 - 0.05 * (k % 5) + 0.01 * detectors,
                "skyBackground": 900.0 + 30 * k + detectors,
                "effTime": np.full(size.detectors, 28.0 - k % 5),
            }
        )
        release.put(summary, "visit_summary", tuple(place), "ArrowAstropy", **place)
    table = Table({"sourceId": np.concatenate([s for s, _ in associations])})
    table["isolatedStarId"] = np.concatenate([i for _, i in associations])
    where = {"instrument": "SimCam", "skymap": "sim_v1", "tract": 0}
    release.put(table, "isolated_star", tuple(where), "ArrowAstropy", **where)


def _put_difference(release, size, rng):
    visit = next(iter(release.visits))
    n, shape = 8, (size.detector_px, size.detector_px)
    x, y = rng.uniform(3, size.detector_px - 3, (2, n))
    flux = np.geomspace(9000, 400, n)
    other_x, other_y = rng.uniform(0, size.detector_px, (2, 30))
    other = rng.uniform(1000, 20000, 30)
    template = _draw_stars(shape, other_x, other_y, other, 5, rng)
    difference = _draw_stars(shape, x, y, flux, 15, rng)
    place = {"instrument": "SimCam", "visit": visit, "detector": 1}
    images = {"template_detector": template, "difference_image": difference, "visit_image": template + difference}
    for name, pixels in images.items():
        image = masked_image(pixels.astype(np.float32), np.full(shape, 225, np.float32), {}, unit=u.nJy)
        release.put(image, name, tuple(place), "MaskedImageV2", **place)
    sources = Table(
        {
            "diaSourceId": np.arange(n),
            "visit": np.full(n, visit),
            "detector": np.full(n, 1),
            "band": np.full(n, release.visits[visit]),
            "x": x,
            "y": y,
            "snr": flux / 60,
            "flag": np.arange(n) == 2,
        }
    )
    where = {"instrument": "SimCam", "skymap": "sim_v1", "tract": 0}
    release.put(sources, "dia_source", tuple(where), "ArrowAstropy", **where)


def _put_bookkeeping(release):
    release.put(Packages({"lsst_images": "30.0", "numpy": "2.0"}), "packages", (), "Packages")
    for number, run in enumerate((RUN, OLDER_RUN)):
        config = MadeUpConfig()
        config.sigma = 5.0 - number
        release.put(config, "detect_config", (), "Config", run)


@pytest.fixture(scope="session")
def made_up_release(tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("made_up") / "repo")


@pytest.fixture(scope="session")
def release_repository(made_up_release):
    return made_up_release.butler
