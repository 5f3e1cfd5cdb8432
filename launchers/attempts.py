"""Attempts at the same work: which ones there have been.

Belongs here: finding the folders of earlier attempts, and which of them are still the latest. Doesn't: making them
(`launchers.claiming`), their names (`launchers.submission`), or what became of them (`launchers.outcome`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from launchers.submission import SubmissionKey

CLAIM_FILE = "dagster_run"
"""In a submission's folder: the runs that have claimed it, one a line, whose it is last."""

REPORTED_FILE = "reported"
"""In a submission's folder: there as soon as Dagster knows what became of it."""

KEY_FILE = "submission.json"
"""In a submission's folder: what it is called, and what it was made for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission that was begun.

    Parameters
    ----------
    key
        What it is called.
    folder
        Where its files are.
    is_rescue
        Whether it does only what attempts before it had left.
    begun_s
        When (seconds since the epoch).
    run_id
        The Dagster run's that claimed it; empty where that died before it could say so.
    former_runs
        Those that had claimed it before it was taken over.
    asked
        What was asked for (`launchers.submission.StepRequest.asked`).
    is_reported
        Whether Dagster knows what became of it.
    """

    key: SubmissionKey
    folder: Path
    is_rescue: bool
    begun_s: float
    run_id: str = ""
    former_runs: tuple[str, ...] = ()
    asked: str = ""
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work as it stands: what somebody asked for as a whole, and what has been rescued of it since.

    Parameters
    ----------
    attempts
        The last whole one and the rescues after it, in their order.
    partitions
        Those that have not been asked for as a part of other work since; empty for a step that runs whole.
    """

    attempts: tuple[Attempt, ...]
    partitions: tuple[str, ...]

    @property
    def last(self) -> Attempt:
        """The latest attempt."""
        return self.attempts[-1]


def attempts_of(submissions: Path, release: str, step: str | None = None) -> list[Attempt]:
    """Find all attempts at a step, over whatever partitions, those at the same work in their order.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    release
        Its name.
    step
        The step's short name; None: all steps'.
    """
    found = _read((submissions / release).glob(f"{release}_{step or ''}*/{KEY_FILE}"))
    wanted = (attempt for attempt in found if step in {None, attempt.key.step})
    return sorted(wanted, key=lambda attempt: (attempt.key.step, attempt.key.partitions, attempt.key.attempt))


def attempts_at(submissions: Path, work: SubmissionKey) -> list[Attempt]:
    """Find all attempts at the same work, in their order.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    work
        Any attempt at it.
    """
    found = _read((submissions / work.release).glob(f"{work.work}_*/{KEY_FILE}"))
    return sorted(found, key=lambda attempt: attempt.key.attempt)


def folders_of_run(submissions: Path, run_id: str) -> list[Path]:
    """Find the folders of the attempts that a run has claimed, and nobody has taken over since.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    run_id
        The Dagster run's.
    """
    claims = sorted(submissions.glob(f"*/*/{CLAIM_FILE}"))
    return [claim.parent for claim in claims if claim.read_text().splitlines()[-1:] == [run_id]]


def _read(files: Iterable[Path]) -> Iterator[Attempt]:
    for file in files:
        content = json.loads(file.read_text())
        key = SubmissionKey(**content["key"] | {"partitions": tuple(content["key"]["partitions"])})
        claim = file.parent / CLAIM_FILE
        *former, run_id = (claim.read_text().splitlines() if claim.is_file() else []) or [""]
        is_reported = (file.parent / REPORTED_FILE).exists()
        yield Attempt(
            key,
            file.parent,
            content["is_rescue"],
            content["begun_s"],
            run_id,
            tuple(former),
            content.get("asked", ""),
            is_reported,
        )


def last_pass(attempts: list[Attempt]) -> list[Attempt]:
    """Give the last attempt that did the whole work, and the rescues after it.

    Parameters
    ----------
    attempts
        At the same work, in their order.
    """
    whole = [number for number, attempt in enumerate(attempts) if not attempt.is_rescue]
    return attempts[whole[-1] :] if whole else attempts


def attempts_before(submissions: Path, key: SubmissionKey) -> list[Attempt]:
    """Find what a rescue is a rescue of: the last whole attempt at the same work before it, and the rescues since.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    key
        The rescue's.
    """
    return last_pass([each for each in attempts_at(submissions, key) if each.key.attempt < key.attempt])


def current_work(attempts: Iterable[Attempt]) -> list[Work]:
    """Give each piece of work that is still the latest for one of its partitions, the earliest first.

    Parameters
    ----------
    attempts
        At one step.
    """
    by_work: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_work.setdefault(attempt.key.digest, []).append(attempt)
    passes = sorted((last_pass(same) for same in by_work.values()), key=lambda work: work[0].begun_s)
    latest = {partition: work[0].key.digest for work in passes for partition in _partitions(work[0].key)}
    return [
        Work(tuple(work), tuple(partition for partition in work[0].key.partitions if latest[partition] == digest))
        for work in passes
        if (digest := work[0].key.digest) in latest.values()
    ]


def _partitions(key: SubmissionKey) -> tuple[str, ...]:
    return key.partitions or ("",)


def rescued_work(
    attempts: Iterable[Attempt], asked: SubmissionKey, run_id: str
) -> list[tuple[SubmissionKey, tuple[str, ...]]]:
    """Find what a rescue is an attempt at: the work that each of its partitions was last asked for as a part of.

    What a rescue does counts only together with all that was done of the same work, so it is an attempt at that work
    even where it does but one of its partitions.

    Parameters
    ----------
    attempts
        At the step.
    asked
        The rescue's partitions.
    run_id
        The Dagster run's: when it resumes it finds what it found first, whatever was begun since.

    Returns
    -------
    work
        Each piece of work as its first attempt, and those of its partitions that the rescue is asked for. What nobody
        has asked for so far is a piece of its own.
    """
    known = list(attempts)
    first_s = min((each.begun_s for each in known if each.run_id == run_id), default=float("inf"))
    works = current_work(each for each in known if each.begun_s < first_s)
    if not asked.partitions:
        return [(asked, ())]
    parts = [
        (replace(asked, partitions=work.last.key.partitions), part)
        for work in works
        if (part := tuple(partition for partition in asked.partitions if partition in work.partitions))
    ]
    covered = {partition for _, part in parts for partition in part}
    rest = tuple(partition for partition in asked.partitions if partition not in covered)
    return [*parts, (replace(asked, partitions=rest), rest)] if rest else parts
