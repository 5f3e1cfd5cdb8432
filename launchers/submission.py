"""Names of submissions, and what a submission is asked to do: what makes two attempts at the same work the same.

Belongs here: the pure functions from (release, step, partitions, attempt) to names of runs, BPS workflows and folders,
and the values that travel between planning a step and launching it.
Doesn't: looking names up in a batch system (`launchers.bps`), or in the Butler (`launchers.outcome`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class SubmissionKey:
    """One attempt at one step over one group of partitions."""

    release: str
    step: str
    partitions: tuple[str, ...]
    attempt: int = 1

    @property
    def digest(self) -> str:
        """Eight hex digits that depend on the partitions alone, whatever their order or PYTHONHASHSEED."""
        return hashlib.blake2s("\0".join(sorted(self.partitions)).encode(), digest_size=4).hexdigest()

    @property
    def work(self) -> str:
        """Name that all attempts at the same work share."""
        return f"{self.release}_{self.step}_{self.digest}"

    @property
    def name(self) -> str:
        """Name of the BPS workflow, the same for everybody who asks for the same work."""
        return f"{self.work}_{self.attempt}"

    @property
    def run_collection(self) -> str:
        """RUN collection that holds this submission's outputs and nobody else's."""
        return f"{self.release}/{self.step}/{self.digest}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Everything that is needed to run one step over one group of partitions.

    Parameters
    ----------
    key
        What this submission is called.
    butler
        URI of the Butler repository.
    pipeline
        Pipeline file and subset, ``"/…/DRP.yaml#step1a-single-visit-detectors"``.
    input_collections
        Collections to search for inputs, in order.
    output_chain
        CHAINED collection that the submission's RUN is prepended to when it ends.
    data_query
        Butler expression that selects the data IDs.
    folder
        Where this submission's graph, submit files and logs live; its own, reachable by the batch system.
    partition_dimension
        Dimension by which datasets are counted (``"day_obs"``, ``"tract"``), or None to count them all together.
    config_overrides
        ``"task:key=value"``.
    skip_existing_in
        Collections in which a quantum's outputs may already be: such a quantum is left out.
    bps
        BPS settings from site profile and release (``wmsServiceClass``, ``computeSite``, ``requestMemory`` …), nested
        as in a BPS file; they win over the defaults of `launchers.bps`.
    quarantined
        Parts of data IDs that are treated as if they had never come.
    later
        Quanta (task label, data ID) that are not done now, nor what depends on them.
    dataset_query_constraint
        Which inputs constrain the graph's query: ``"all"``, ``"off"`` or names of dataset types, separated by commas;
        None for pipe_base's default.
    """

    key: SubmissionKey
    butler: str
    pipeline: str
    input_collections: tuple[str, ...]
    output_chain: str
    data_query: str
    folder: Path
    partition_dimension: str | None = None
    config_overrides: tuple[str, ...] = ()
    skip_existing_in: tuple[str, ...] = ()
    bps: Mapping[str, Any] = field(default_factory=dict)
    quarantined: tuple[Mapping[str, int | str], ...] = ()
    later: tuple[tuple[str, Mapping[str, int | str]], ...] = ()
    dataset_query_constraint: str | None = None

    def asked(self, *more: str) -> str:
        """Sixteen hex digits that are the same for requests that ask for the same, whichever attempts they are.

        What is quarantined may change while a submission runs, which doesn't change the submission.

        Parameters
        ----------
        more
            What else was asked for.
        """
        same = replace(self, key=replace(self.key, attempt=1), folder=Path(), quarantined=())
        text = json.dumps([asdict(same), more], sort_keys=True, default=str)
        return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()

    @property
    def graph_path(self) -> Path:
        """The quantum graph's file."""
        return self.folder / f"{self.key.name}.qg"

    @property
    def submit_path(self) -> Path:
        """The folder that BPS and its plugin write into."""
        return self.folder / "submit"

    @property
    def provenance_path(self) -> Path:
        """Where the final job writes what became of each quantum."""
        return self.folder / "provenance.qg"
