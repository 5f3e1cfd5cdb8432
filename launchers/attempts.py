"""Attempts at the same work: which one a run is, and which ones there have been.

Belongs here: claiming a submission's folder, so that a resumed run finds its own again and no two runs share one, and
finding the folders of earlier attempts. Doesn't: their names (`launchers.submission`), or what became of them
(`launchers.outcome`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from launchers.submission import SubmissionKey

_CLAIM = "dagster_run"
_KEY = "submission.json"


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
    """

    key: SubmissionKey
    folder: Path
    is_rescue: bool
    begun_s: float


def claim_attempt(
    submissions: Path, first: SubmissionKey, run_id: str, *, is_rescue: bool = False
) -> tuple[SubmissionKey, Path]:
    """Find which attempt at the same work a run is: its own again when it resumes, else the next free one.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    first
        The work, as the first attempt that it may be.
    run_id
        The Dagster run's.
    is_rescue
        Whether the attempt does only what those before it have left.

    Returns
    -------
    key
        The same work with this run's attempt.
    folder
        The submission's own folder, which now exists.
    """
    attempt = first.attempt
    while True:
        key = SubmissionKey(first.release, first.step, first.partitions, attempt)
        folder = submissions / key.release / key.name
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            claim = folder / _CLAIM
            if claim.is_file() and claim.read_text() == run_id:
                return key, folder
            attempt += 1
        else:
            new = folder / f"{_KEY}.new"
            new.write_text(json.dumps({"key": asdict(key), "is_rescue": is_rescue, "begun_s": time.time()}))
            new.replace(folder / _KEY)  # whole, for whoever lists attempts meanwhile
            (folder / _CLAIM).write_text(run_id)
            return key, folder


def attempts_of(submissions: Path, release: str, step: str) -> list[Attempt]:
    """Find all attempts at a step, over whatever partitions, those at the same work in their order.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    release, step
        The step's short name.
    """
    found = []
    for file in (submissions / release).glob(f"{release}_{step}_*/{_KEY}"):
        content = json.loads(file.read_text())
        key = SubmissionKey(**content["key"] | {"partitions": tuple(content["key"]["partitions"])})
        if key.step == step:
            found.append(Attempt(key, file.parent, content["is_rescue"], content["begun_s"]))
    return sorted(found, key=lambda attempt: (attempt.key.partitions, attempt.key.attempt))


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
    same = [each for each in attempts_of(submissions, key.release, key.step) if each.key.digest == key.digest]
    return last_pass([each for each in same if each.key.attempt < key.attempt])


def current_work(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    """Give the last pass of each piece of work that is still the latest for one of its partitions.

    Parameters
    ----------
    attempts
        At one step.
    """
    by_work: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_work.setdefault(attempt.key.digest, []).append(attempt)
    passes = sorted((last_pass(same) for same in by_work.values()), key=lambda work: work[0].begun_s)
    latest = {partition: work[0].key.digest for work in passes for partition in work[0].key.partitions or ("",)}
    return [work for work in passes if work[0].key.digest in latest.values()]
