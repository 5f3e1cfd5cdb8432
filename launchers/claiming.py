"""Claiming an attempt: which one a run is, whose it takes over, and when it has to keep away.

Belongs here: the one place that makes a submission's folder, so that a resumed run finds its own again, no two runs
share one, what still runs in the batch system is watched rather than submitted a second time beside it, and what ended
when nobody watched is judged rather than done again.
Doesn't: which attempts there have been (`launchers.attempts`), what they ask for (`launchers.submission`), or how one
finds out who lives (`launchers.step_run`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from launchers.attempts import CLAIM_FILE, KEY_FILE, REPORTED_FILE, Attempt, attempts_at
from launchers.folders import writing
from launchers.processes import exclusive
from launchers.submission import SubmissionKey
from resources.errors import Rejected, Retriable

if TYPE_CHECKING:
    from launchers.bps import Handle  # its import takes the middleware's seconds

_LOCK_S = 600.0


@dataclass(frozen=True, slots=True)
class Others:
    """What a run can find out about the runs before it.

    Parameters
    ----------
    lives
        Whether a Dagster run still goes on with this step.
    still_runs
        What was submitted from a folder, where it is not over in the batch system.
    is_repeated
        Whether this run re-executes one that failed.
    state_of
        State in the batch system of what was submitted from a folder; empty where nothing was.
    tell
        Where to say that a submission is taken over.
    """

    lives: Callable[[str], bool] = lambda run_id: False
    still_runs: Callable[[Path], Handle | None] = lambda folder: None
    is_repeated: Callable[[str], bool] = lambda run_id: False
    state_of: Callable[[Path], str] = lambda folder: ""
    tell: Callable[[str], None] = lambda line: None


def claim_attempt(
    submissions: Path,
    first: SubmissionKey,
    run_id: str,
    *,
    is_rescue: bool = False,
    asked: str = "",
    others: Others | None = None,
) -> tuple[SubmissionKey, Path]:
    """Find which attempt at the same work a run is: its own again, one that nobody watches any more, or the next.

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
    asked
        What it asks for (`launchers.submission.StepRequest.asked`): only a run that asks for the same takes over.
    others
        What is known of the runs before it; None: that they are all gone, with what they submitted.

    Returns
    -------
    key
        The same work with this run's attempt.
    folder
        The submission's own folder, which now exists.

    Raises
    ------
    resources.errors.Rejected
        Another run is at it, or what it has submitted still runs and does something else.
    resources.errors.SiteFault
        The folder can't be made.
    """
    others = others or Others()
    release = submissions / first.release
    # Of two runs that come at once one takes over, and the other one finds it alive.
    with writing(release), exclusive(release / f"{first.work}.claim", wait_s=_LOCK_S) as lock:
        if lock is None:
            raise Retriable("another run is claiming it", first.work, "try again in a minute")
        attempts = attempts_at(submissions, first)
        mine = [each for each in attempts if each.run_id == run_id and each.key.attempt >= first.attempt]
        found = mine[0] if mine else _left_behind(attempts, run_id, is_rescue, asked, others)
        if found is None:
            return _next_attempt(release, first, attempts, run_id, is_rescue=is_rescue, asked=asked)
        # Its rescues as well, also where a worker died while it took them over.
        former = {found.run_id, *found.former_runs} - {run_id, ""}
        for each in attempts[attempts.index(found) :]:
            if each.run_id in former:
                _write(each.folder / CLAIM_FILE, "\n".join([*each.former_runs, each.run_id, run_id]))
        return found.key, found.folder


def settle(submissions: Path, work: SubmissionKey, run_id: str) -> None:
    """Take note that Dagster knows what became of all that a run has submitted: whoever comes next begins anew.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    work
        Any attempt at the work.
    run_id
        The Dagster run's.

    Raises
    ------
    resources.errors.SiteFault
        It can't be written down.
    """
    for attempt in attempts_at(submissions, work):
        if attempt.run_id == run_id:
            with writing(attempt.folder):
                (attempt.folder / REPORTED_FILE).touch()


def _left_behind(
    attempts: Sequence[Attempt], run_id: str, is_rescue: bool, asked: str, others: Others
) -> Attempt | None:
    """Give the attempt from which on another run's are taken over; None where there is nothing to take over."""
    if not attempts or attempts[-1].run_id == run_id:
        return None
    last = attempts[-1]
    name = f"attempt {last.key.attempt}"
    handle = others.still_runs(last.folder)
    # Rescues take their turns, and what another one has done it leaves to the next.
    is_done_with = handle is None and is_rescue and last.is_rescue
    if last.run_id and not is_done_with and others.lives(last.run_id):
        raise Rejected(
            f"{name} is under way in run {last.run_id}",
            last.key.name,
            "wait for that run, or terminate it, which cancels its jobs",
        )
    begun = next(each for each in attempts if each.run_id == last.run_id)
    if handle is None:
        if is_rescue or not _ended_unheard(attempts[attempts.index(begun) :], asked, others):
            return None
        others.tell(f"{last.key.work} ended when run {last.run_id} was gone: judging it")
        return begun
    if not asked or begun.asked != asked:
        raise Rejected(
            f"{name} still runs in the batch system, and was asked for with other settings",
            last.key.name,
            "wait until it is over, or end it with"
            f" bps cancel --wms-service-class {handle.service_class} --id {handle.wms_id}",
        )
    others.tell(f"{name} of {last.key.work} still runs, without run {last.run_id}: watching it")
    return begun


def _ended_unheard(attempts: Sequence[Attempt], asked: str, others: Others) -> bool:
    """Whether this run was launched to learn what became of another one's submissions.

    Whoever launches a run that has nothing to do with that one may want the work done with what has come since. And a
    submission that couldn't be judged twice is not handed on for ever.
    """
    begun, last = attempts[0], attempts[-1]
    if not asked or begun.asked != asked or begun.former_runs or last.is_reported:
        return False
    if not others.is_repeated(last.run_id):
        return False
    # Its worker may have died before it could submit a rescue.
    states = filter(None, (others.state_of(each.folder) for each in reversed(attempts)))
    return next(states, "") in {"SUCCEEDED", "FAILED"}


def _next_attempt(
    release: Path, first: SubmissionKey, attempts: Sequence[Attempt], run_id: str, *, is_rescue: bool, asked: str
) -> tuple[SubmissionKey, Path]:
    key = replace(first, attempt=max([first.attempt, *(each.key.attempt + 1 for each in attempts)]))
    while (release / key.name).exists():  # somebody died before he could say whose it is
        key = replace(key, attempt=key.attempt + 1)
    folder = release / key.name
    folder.mkdir()
    content = {"key": asdict(key), "is_rescue": is_rescue, "begun_s": time.time(), "asked": asked}
    _write(folder / KEY_FILE, json.dumps(content))
    _write(folder / CLAIM_FILE, run_id)
    return key, folder


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)  # whole, for whoever lists attempts meanwhile
