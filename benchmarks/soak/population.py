"""What a soak publishes: which files, which messages about them, in which order; all of it follows from size and seed.

A hundred files, or as many as one likes, are about one exposure: its dimensions, its raws (as single files or in a
zip), and products, half of which wait for the exposure and half for its visit. One message in a hundred is broken, one
in a hundred repeats another, and on top there is one event in a hundred that announces no file. All are shuffled; the
dimensions of one exposure in twenty come after everything else.

Belongs here: the pure part. Doesn't: files (`benchmarks.soak.files`), or what is broken how (`benchmarks.soak.broken`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID, uuid5

import numpy as np

from simulator.survey import Survey, Visit

DETECTORS = (0, 1)
"""Of which there are raws."""

PRODUCT_DETECTORS = 9
"""Of so many detectors there are products, all that the camera has."""

FILES_AN_EXPOSURE = 100
EXPOSURES_A_NIGHT = 700
MIN_NIGHTS = 2

BROKEN_SHARE = 0.01
DUPLICATED_SHARE = 0.01
EVENT_SHARE = 0.01
DIMENSIONS_LAST_SHARE = 0.05

PRODUCT_RUN = "soak/products"
_NAMESPACE = UUID("8c2a1f60-3c55-4f0e-9d0a-5a1d3d9f6b10")

DIMENSIONS = 0
"""Role of an exposure's file of dimensions; raws or the zip are the next ones, and products come after those."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product: its dataset, whose id is derived from what it is."""

    visit: Visit
    number: int

    @property
    def dataset_type(self) -> str:
        """Its dataset type, one of `Population.product_types`."""
        return product_type(self.number // PRODUCT_DETECTORS)

    @property
    def detector(self) -> int:
        """Its detector."""
        return self.number % PRODUCT_DETECTORS

    @property
    def waits_for(self) -> str:
        """The dimension that has to be there first: every other type is of visits, which raws define."""
        return product_dimension(self.number // PRODUCT_DETECTORS)

    @property
    def dataset_id(self) -> UUID:
        """Its dataset's id."""
        return uuid5(_NAMESPACE, f"{self.dataset_type}/{self.visit.id}/{self.detector}")


def product_type(number: int) -> str:
    """Name of a dataset type of products, by its number."""
    return f"soak_{product_dimension(number)}_{number:03d}"


def product_dimension(number: int) -> str:
    """What the products of a type are of, by its number."""
    return "exposure" if number % 2 == 0 else "visit"


@dataclass(frozen=True, slots=True)
class Slot:
    """One message to be: about a good file, of one broken way, or an event about a file.

    Parameters
    ----------
    exposure, role
        The file, or what a broken message is derived from.
    way
        Number of the way in which it is broken; none if it isn't.
    is_event
        Whether it is an event that announces no file.
    """

    exposure: int
    role: int
    way: int | None = None
    is_event: bool = False


class Population:
    """The messages of one soak.

    Parameters
    ----------
    messages
        How many get a row in the ledger; events come on top.
    ways
        In how many ways messages are broken; each comes about as often.
    seed
        Of everything.
    files_an_exposure
        How many files there are about each.
    """

    def __init__(self, messages: int, ways: int, seed: int, files_an_exposure: int = FILES_AN_EXPOSURE) -> None:
        self.messages = messages
        self.ways = ways
        self.seed = seed
        self.broken = max(round(messages * BROKEN_SHARE), ways)
        self.duplicated = round(messages * DUPLICATED_SHARE)
        self.events = round(messages * EVENT_SHARE)
        self.good_files = messages - self.broken - self.duplicated
        self.exposures = max(2 * MIN_NIGHTS, round(self.good_files / files_an_exposure))
        fewest = 1 + len(DETECTORS)
        if self.good_files < self.exposures * fewest:
            raise ValueError(f"{messages} messages are too few: {self.exposures} exposures of {fewest} files don't fit")

    @cached_property
    def visits(self) -> Sequence[Visit]:
        """The exposures."""
        nights = max(MIN_NIGHTS, -(-self.exposures // EXPOSURES_A_NIGHT))
        return self.survey(nights).visits[: self.exposures]

    def survey(self, nights: int = MIN_NIGHTS) -> Survey:
        """The survey that the exposures are of."""
        return Survey(
            name="soak",
            seed=self.seed,
            detector_ids=DETECTORS,
            detector_px=64,
            bands=("r",),
            days=nights,
            epochs_per_day=-(-self.exposures // nights),
            patches_per_side=1,
        )

    def is_zipped(self, exposure: int) -> bool:
        """Whether an exposure's raws travel in a zip: every other one's do."""
        return exposure % 2 == 0

    def raw_roles(self, exposure: int) -> range:
        """Roles of the files that hold an exposure's raws."""
        return range(1, 2) if self.is_zipped(exposure) else range(1, 1 + len(DETECTORS))

    def files(self, exposure: int) -> int:
        """How many good files there are of an exposure."""
        share, rest = divmod(self.good_files, self.exposures)
        return share + (exposure < rest)

    def product(self, exposure: int, role: int) -> Product | None:
        """The product that a file holds, if it is one."""
        first = self.raw_roles(exposure).stop
        return Product(self.visits[exposure], role - first) if role >= first else None

    @property
    def product_types(self) -> int:
        """How many dataset types products have."""
        most = max(self.files(exposure) - self.raw_roles(exposure).stop for exposure in (0, 1))
        return -(-most // PRODUCT_DETECTORS)

    @property
    def raws(self) -> int:
        """How many raws there are, in zips or not."""
        return self.exposures * len(DETECTORS)

    @property
    def products(self) -> int:
        """How many products there are."""
        return sum(self.files(exposure) - self.raw_roles(exposure).stop for exposure in range(self.exposures))

    @cached_property
    def order(self) -> Sequence[int]:
        """Positions of messages as they are published: numbers that `slot` understands."""
        rng = np.random.default_rng([self.seed, 1])
        dimensions = self._first_of_exposure[:-1]
        late_exposures = max(1, round(self.exposures * DIMENSIONS_LAST_SHARE))
        late = rng.choice(dimensions, size=late_exposures, replace=False)
        duplicated = rng.choice(self.good_files, size=self.duplicated, replace=False)
        numbers = np.concatenate(
            [np.arange(self.good_files), duplicated, self.good_files + np.arange(self.broken + self.events)]
        )
        shuffled = rng.permutation(numbers)
        is_late = np.isin(shuffled, late)
        return np.concatenate([shuffled[~is_late], shuffled[is_late]])  # type: ignore[return-value]

    def slot(self, number: int) -> Slot:
        """What a number of `order` stands for: good files first, then what is broken, then events."""
        if number < self.good_files:
            return self._file(number)
        number -= self.good_files
        if number < self.broken:
            # Whatever a way is about, it is about another exposure each time.
            exposure = int(np.random.default_rng([self.seed, 2, number]).integers(self.exposures))
            return Slot(exposure, number, way=number % self.ways)
        about = int(np.random.default_rng([self.seed, 3, number]).integers(self.good_files))
        file = self._file(about)
        return Slot(file.exposure, file.role, is_event=True)

    def late_exposures(self) -> int:
        """Of how many exposures the dimensions come last."""
        return max(1, round(self.exposures * DIMENSIONS_LAST_SHARE))

    @cached_property
    def _first_of_exposure(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([self.files(exposure) for exposure in range(self.exposures)])])

    def _file(self, number: int) -> Slot:
        exposure = int(np.searchsorted(self._first_of_exposure, number, side="right")) - 1
        return Slot(exposure, number - int(self._first_of_exposure[exposure]))
