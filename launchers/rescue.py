"""A rescue: what earlier attempts at the same work have left, done again and nothing else.

Belongs here: reading what those attempts came to, and the request that does what they left, all of it or one cause.
Doesn't: what is decided about new failures (`launchers.policies`), or starting runs (`commands.rescue`,
`drp_assets.rescue`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from launchers import bps, watch
from launchers.attempts import Attempt
from launchers.judging import read_outcome, read_quanta
from launchers.outcome import Outcome, Quantum, QuantumFailure
from launchers.policies import combine
from launchers.submission import StepRequest
from resources.errors import Rejected


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a piece of work.

    Parameters
    ----------
    outcome
        What its attempts came to, together; what is quarantined is not among its failures.
    attempts
        Those that were submitted.
    quanta
        Those that have not succeeded, without what is quarantined: a rescue of all causes does these.
    """

    outcome: Outcome
    attempts: tuple[Attempt, ...]
    quanta: frozenset[Quantum]


def read_remains(
    request: StepRequest,
    attempts: Iterable[Attempt],
    quarantined: Sequence[Mapping[str, int | str]] = (),
    partitions: Collection[str] = (),
) -> Remains | None:
    """Read what the attempts at a piece of work have left; None when none of them was ever submitted.

    Parameters
    ----------
    request
        Any request for the work; its key and folder are replaced by each attempt's.
    attempts
        The last whole one and the rescues since, in their order.
    quarantined
        Parts of data IDs that are left out.
    partitions
        Only what is left in these; none: all.

    Raises
    ------
    resources.errors.Rejected
        One of them isn't over.
    """
    outcome: Outcome | None = None
    submitted = []
    done: dict[Quantum, bool] = {}
    for attempt in attempts:
        handle = bps.find(attempt.folder)
        if handle is None:
            continue
        if not (progress := watch.look(handle)).is_over:
            raise Rejected(f"it is {progress.state.lower()}", handle.name, "wait for it, or cancel its run")
        submitted.append(attempt)
        tried = dataclasses.replace(request, key=attempt.key, folder=attempt.folder)
        after, quanta = read_outcome(tried, handle), read_quanta(tried)
        outcome = after if outcome is None else combine(outcome, after, not_tried(outcome.failures, quanta))
        done |= read_quanta(tried, partitions, quarantined) if partitions or quarantined else quanta
    if outcome is None:
        return None
    failures = [each for each in outcome.failures if each.quantum in done]
    left = (quantum for quantum, is_done in done.items() if not is_done)
    return Remains(dataclasses.replace(outcome, failures=tuple(failures)), tuple(submitted), frozenset(left))


def _is_within(items: Collection[tuple[str, int | str]], parts: Sequence[Mapping[str, int | str]]) -> bool:
    return any(part.items() <= set(items) for part in parts)


def not_tried(
    failures: Iterable[QuantumFailure],
    tried: Container[Quantum],
    quarantined: Sequence[Mapping[str, int | str]] = (),
) -> list[QuantumFailure]:
    """Give the failures that a rescue has not tried again.

    Parameters
    ----------
    failures
        Of the attempts before it.
    tried
        The rescue's quanta.
    quarantined
        Parts of data IDs that are left out: they are no failures any more.
    """
    return [
        each for each in failures if each.quantum not in tried and not _is_within(each.data_id.items(), quarantined)
    ]


def of_causes(failures: Iterable[QuantumFailure], causes: Sequence[str]) -> list[QuantumFailure]:
    """Choose failures by their cause.

    Parameters
    ----------
    failures
        To choose from.
    causes
        Regular expressions, each found anywhere in ``task: exception: message``; none chooses all.

    Raises
    ------
    resources.errors.Rejected
        One of them is no regular expression.
    """
    try:
        patterns = [re.compile(cause) for cause in causes]
    except re.error as error:
        raise Rejected(f"not a regular expression: {error}", str(causes), "correct it") from error
    return [each for each in failures if not patterns or any(pattern.search(cause_of(each)) for pattern in patterns)]


def cause_of(failure: QuantumFailure) -> str:
    """Say what causes are compared with, and what failures are grouped by: ``task: exception: message``.

    Parameters
    ----------
    failure
        What failed.
    """
    return f"{failure.task}: {failure.exception or 'no exception'}: {failure.message}"


def rescue_request(request: StepRequest, remains: Remains, causes: Sequence[str]) -> StepRequest:
    """Write the request that does what earlier attempts have left.

    Parameters
    ----------
    request
        The rescue's own key and folder, and everything else that it takes from release and site.
    remains
        What is left.
    causes
        See `of_causes`: failures of other causes, and what depends on them, stay as they are.

    Raises
    ------
    resources.errors.Rejected
        No failure is of these causes.
    """
    failures = remains.outcome.failures
    chosen = of_causes(failures, causes)
    if failures and not chosen:
        raise Rejected("nothing failed for that", request.key.name, "see `drp rescue` without --cause for the causes")
    wanted = {each.quantum for each in chosen}
    later = [each for each in failures if each.quantum not in wanted]
    runs = [attempt.key.run_collection for attempt in reversed(remains.attempts)]
    return dataclasses.replace(
        request,
        skip_existing_in=tuple(runs),
        later=tuple((each.task, each.data_id) for each in later),
    )
