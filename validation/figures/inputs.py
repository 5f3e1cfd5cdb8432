"""What figures are drawn from: one tract of one release, read from the Butler as tables, images and positions.

Belongs here: every Butler look-up of the figures, and the one way to say that an input isn't there. Doesn't: drawing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from lsst.daf.butler import Butler, DatasetRef, MissingDatasetTypeError
from lsst.images import Box

from validation.bands import bands_in
from validation.metrics import Measurement, read_metrics

_SLOT = re.compile(r"(?:R(?P<raft_y>\d)(?P<raft_x>\d)_)?S(?P<y>\d)(?P<x>\d)$")


class InputMissing(Exception):
    """A figure can't be drawn; the message says what isn't there."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Patches of one band side by side, binned.

    Parameters
    ----------
    pixels
        (rows, columns); NaN where no patch is.
    arcsec_per_pixel
        Of the binned pixels; None if the images have no sky projection.
    patches, of_patches
        How many are shown, and how many there are.
    """

    pixels: np.ndarray
    arcsec_per_pixel: float | None
    patches: int
    of_patches: int


@dataclass(frozen=True, slots=True)
class SkyMapCut:
    """A map over a part of the sky.

    Parameters
    ----------
    pixels
        (declinations, right ascensions); NaN where the map knows nothing.
    ra, dec
        Of the pixels' centres, deg; ``ra`` may pass 360.
    """

    pixels: np.ndarray
    ra: np.ndarray
    dec: np.ndarray


@dataclass(frozen=True)
class ReleaseTract:
    """One tract of a release, for reading.

    Parameters
    ----------
    butler
        Of the repository.
    collection
        The release's chain.
    skymap, tract
        Which tract.
    instrument
        Whose visits.
    most_visits
        Visit tables read at most, evenly spread over the survey: a figure of thousands of visits shows no more.
    most_patches
        Patches a mosaic shows at most.
    """

    butler: Butler
    collection: str
    skymap: str
    tract: int
    instrument: str
    most_visits: int = 120
    most_patches: int = 16
    _tables: dict[tuple[str, tuple[str, ...]], Table] = field(default_factory=dict, repr=False)

    def refs(self, dataset_type: str, **data_id: Any) -> list[DatasetRef]:
        """Find a product's datasets that belong to this tract, or overlap it.

        Parameters
        ----------
        dataset_type
            The product.
        **data_id
            Further dimensions to fix, such as ``band``.

        Raises
        ------
        InputMissing
            There are none.
        """
        try:
            dimensions = self.butler.get_dataset_type(dataset_type).dimensions
        except MissingDatasetTypeError:
            raise InputMissing(f"{dataset_type} was never made") from None
        constraint: dict[str, Any] = dict(data_id)
        if "instrument" in dimensions:
            constraint["instrument"] = self.instrument
        if "skymap" in dimensions or "visit" in dimensions:
            constraint["skymap"] = self.skymap
        if "tract" in dimensions or "visit" in dimensions:
            constraint["tract"] = self.tract
        with self.butler.query() as query:
            found = set(query.where(**constraint).datasets(dataset_type, self.collection, find_first=True))
        if not found:
            named = "".join(f" for {key} {value}" for key, value in data_id.items())
            raise InputMissing(f"there is no {dataset_type}{named} in tract {self.tract}")
        return sorted(found, key=lambda ref: tuple(ref.dataId.required_values))

    def table(self, dataset_type: str, columns: Sequence[str]) -> Table:
        """Read columns of a product that is a table: the tract's own, or those of its visits one after another.

        Parameters
        ----------
        dataset_type
            The product.
        columns
            What is needed of it.

        Raises
        ------
        InputMissing
            There is no such table, it lacks a column, or it has no rows.
        """
        key = dataset_type, tuple(columns)
        if key not in self._tables:
            self._tables[key] = self._read(dataset_type, columns)
        return self._tables[key]

    def _read(self, dataset_type: str, columns: Sequence[str]) -> Table:
        refs = self.refs(dataset_type)
        step = -(-len(refs) // self.most_visits)
        lacking = set(columns) - {str(name) for name in self.butler.get(refs[0].makeComponentRef("columns"))}
        if lacking:
            raise InputMissing(f"{dataset_type} has no column {', '.join(sorted(lacking))}")
        tables = [self.butler.get(ref, parameters={"columns": list(columns)}) for ref in refs[::step]]
        table = vstack([t for t in tables if len(t)] or tables[:1], metadata_conflicts="silent")
        if not len(table):
            raise InputMissing(f"{dataset_type} has no rows")
        return table

    @cached_property
    def metrics(self) -> tuple[Measurement, ...]:
        """What the validation step measured in this tract."""
        return read_metrics(self.butler, self.collection, tracts=[self.tract], skymap=self.skymap)

    def bands(self, dataset_type: str) -> tuple[str, ...]:
        """Bands in which a product exists here, by wavelength.

        Parameters
        ----------
        dataset_type
            A product with the dimension band.
        """
        return bands_in(str(ref.dataId["band"]) for ref in self.refs(dataset_type))

    def mosaic(self, dataset_type: str, band: str, size: int = 600) -> Mosaic:
        """Put the images of a band's patches side by side, binned to at most ``size`` pixels; the innermost if many.

        Parameters
        ----------
        dataset_type
            Images of patches in tract pixels.
        band
            Of them.
        size
            Pixels of the longer side, at most.
        """
        everything = self.refs(dataset_type, band=band)
        refs = self._innermost(everything)[: self.most_patches]
        boxes = [self.butler.get(ref.makeComponentRef("bbox")) for ref in refs]
        x0, y0 = min(box.x.start for box in boxes), min(box.y.start for box in boxes)
        width, height = max(box.x.stop for box in boxes) - x0, max(box.y.stop for box in boxes) - y0
        factor = -(-max(width, height) // size)
        total = np.zeros((-(-height // factor), -(-width // factor)))
        count = np.zeros_like(total)
        scale = None
        for ref, box in zip(refs, boxes, strict=True):
            image = self._pixels(ref)
            scale = scale or self._arcsec_per_pixel(ref, box)
            rows = (np.arange(box.y.start, box.y.stop) - y0) // factor
            columns = (np.arange(box.x.start, box.x.stop) - x0) // factor
            good = np.isfinite(image)
            where = np.broadcast_arrays(rows[:, None], columns[None, :])
            flat = np.ravel_multi_index((where[0][good], where[1][good]), total.shape)
            total += np.bincount(flat, image[good], total.size).reshape(total.shape)
            count += np.bincount(flat, minlength=total.size).reshape(total.shape)
        pixels = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return Mosaic(pixels, scale * factor if scale else None, len(refs), len(everything))

    def middle(self, dataset_type: str, band: str, half: int) -> Mosaic:
        """Read the middle of the innermost patch, unbinned.

        Parameters
        ----------
        dataset_type
            Images of patches in tract pixels.
        band
            Of them.
        half
            Half the side, pixels; less where the patch is smaller.
        """
        refs = self._innermost(self.refs(dataset_type, band=band))
        box = self.butler.get(refs[0].makeComponentRef("bbox"))
        x, y = (box.x.start + box.x.stop - 1) / 2, (box.y.start + box.y.stop - 1) / 2
        reach = min(half, (min(box.shape) - 1) // 2)
        return Mosaic(self.cutout(refs[0], x, y, reach), self._arcsec_per_pixel(refs[0], box), 1, len(refs))

    def cutout(self, ref: DatasetRef, x: float, y: float, half: int) -> np.ndarray:
        """Read a square around a pixel; NaN beyond the image's edge.

        Parameters
        ----------
        ref
            An image.
        x, y
            Centre in the image's own pixel coordinates.
        half
            The square has 2 half + 1 pixels a side.
        """
        edge = self.butler.get(ref.makeComponentRef("bbox"))
        column, row = round(x), round(y)
        wanted = Box.factory[row - half : row + half + 1, column - half : column + half + 1]
        cut = np.full((2 * half + 1, 2 * half + 1), np.nan)
        y0, y1 = max(wanted.y.start, edge.y.start), min(wanted.y.stop, edge.y.stop)
        x0, x1 = max(wanted.x.start, edge.x.start), min(wanted.x.stop, edge.x.stop)
        if y0 < y1 and x0 < x1:
            part = self._pixels(ref, bbox=Box.factory[y0:y1, x0:x1])
            cut[y0 - wanted.y.start : y1 - wanted.y.start, x0 - wanted.x.start : x1 - wanted.x.start] = part
        return cut

    def sky_map(self, ref: DatasetRef, size: int = 320) -> SkyMapCut:
        """Sample a healsparse map over the tract, on a grid of right ascension and declination.

        Parameters
        ----------
        ref
            A `healsparse.HealSparseMap`, of the tract or the whole sky.
        size
            Samples along each side.

        Raises
        ------
        InputMissing
            The skymap has no such tract.
        """
        tracts = self.butler.query_dimension_records("tract", skymap=self.skymap, tract=self.tract, explain=False)
        if not tracts:
            raise InputMissing(f"skymap {self.skymap} has no tract {self.tract}")
        box = tracts[0].region.getBoundingBox()
        lon, lat = box.getLon(), box.getLat()
        ra = np.degrees(lon.getA().asRadians() + lon.getSize().asRadians() * (np.arange(size) + 0.5) / size)
        low, high = lat.getA().asDegrees(), lat.getB().asDegrees()
        dec = low + (high - low) * (np.arange(size) + 0.5) / size
        grid_ra, grid_dec = np.meshgrid(ra % 360, dec)
        pixels = np.asarray(self.butler.get(ref).get_values_pos(grid_ra, grid_dec, lonlat=True), dtype=float)
        # healsparse marks what it doesn't know by a huge negative number.
        return SkyMapCut(np.where(pixels > -1e29, pixels, np.nan), ra, dec)

    def detector_places(self) -> dict[int, tuple[int, int]]:
        """Give each detector's (column, row) in the focal plane, from raft and slot such as R22_S01.

        Raises
        ------
        InputMissing
            The detectors' names tell no place.
        """
        records = self.butler.query_dimension_records("detector", instrument=self.instrument, explain=False)
        places = {int(record.id): place_of(record.full_name) for record in records}
        known = {detector: place for detector, place in places.items() if place}
        if not known:
            raise InputMissing(f"no detector of {self.instrument} is named by raft and slot")
        left, low = min(x for x, _ in known.values()), min(y for _, y in known.values())
        return {detector: (x - left, y - low) for detector, (x, y) in known.items()}

    def _innermost(self, refs: list[DatasetRef]) -> list[DatasetRef]:
        """Order patches from the middle of the tract outwards."""
        records = self.butler.query_dimension_records("patch", skymap=self.skymap, tract=self.tract, limit=None)
        cells = {int(record.id): (record.cell_x, record.cell_y) for record in records}
        centre = np.mean(list(cells.values()), axis=0)
        distance = {patch: float(np.abs(np.asarray(cell) - centre).max()) for patch, cell in cells.items()}
        return sorted(refs, key=lambda ref: distance[int(ref.dataId["patch"])])

    def _pixels(self, ref: DatasetRef, **parameters: Any) -> np.ndarray:
        """Read an image's pixels; NaN where a masked image has no data, and nobody interpolated any."""
        if "mask" not in ref.datasetType.storageClass.allComponents():
            return np.asarray(self.butler.get(ref, parameters=parameters).array)
        image, mask = (self.butler.get(ref.makeComponentRef(name), parameters=parameters) for name in ("image", "mask"))
        planes = {plane.name for plane in mask.schema if plane is not None}
        empty = mask.get("NO_DATA") if "NO_DATA" in planes else np.zeros(image.array.shape, bool)
        filled = mask.get("INTRP") if "INTRP" in planes else np.zeros(image.array.shape, bool)
        return np.where(empty & ~filled, np.nan, image.array)

    def _arcsec_per_pixel(self, ref: DatasetRef, box: Box) -> float | None:
        projection = self.butler.get(ref.makeComponentRef("sky_projection"))
        if projection is None:
            return None
        x, y = (box.x.start + box.x.stop) / 2, (box.y.start + box.y.stop) / 2
        ends = projection.pixel_to_sky(x=np.array([x, x + 1]), y=np.array([y, y]))
        return float(ends[0].separation(ends[1]).arcsec)


def place_of(name: str) -> tuple[int, int] | None:
    """Tell a detector's (column, row) from its name; row before column, as in R22_S01 of the LSST camera.

    Parameters
    ----------
    name
        Raft and slot, or slot alone; None comes back for anything else, such as a wavefront sensor.
    """
    match = _SLOT.search(name)
    if not match:
        return None
    raft_x, raft_y = int(match["raft_x"] or 0), int(match["raft_y"] or 0)
    return 3 * raft_x + int(match["x"]), 3 * raft_y + int(match["y"])


def by_band(table: Table) -> Iterator[tuple[str, Table]]:
    """Split a table by its band column, by wavelength.

    Parameters
    ----------
    table
        With a column band.
    """
    column = np.asarray(table["band"]).astype(str)
    for band in bands_in(column):
        yield band, table[column == band]


def numbers(table: Table, column: str) -> np.ndarray:
    """Give a column as plain float64 numbers, without its unit.

    Parameters
    ----------
    table
        Of the column.
    column
        Its name.
    """
    return np.asarray(table[column], dtype=float)


def rows_where(table: Table, *conditions: Iterable[bool]) -> Table:
    """Pick the rows that meet every condition.

    Parameters
    ----------
    table
        To pick from.
    *conditions
        A truth value a row each.
    """
    return table[np.logical_and.reduce([np.asarray(condition) for condition in conditions])]
