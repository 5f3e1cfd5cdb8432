"""What a submission's failures lead to: decisions, and the rescue that carries them out.

Belongs here: judging each failure by the release's policies, the request that does exactly the failed quanta again, and
one outcome out of several attempts; as functions of values. Doesn't: the rules (`planning.policies`), their record
(`launchers.casebook`), telling of them (`launchers.causes`), memory in BPS settings (`launchers.memory`), or running
anything (`launchers.step_run`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launchers.casebook import Case
from launchers.memory import limit_of, memory_tried, with_memory
from launchers.outcome import DatasetCount, Judgement, Outcome, Quantum, QuantumFailure, TaskOutcome, quantum_of
from launchers.submission import StepRequest, SubmissionKey
from planning.policies import Action, Decision, Failure, FailurePolicy, decide, memory_by_task

_WHOLE = frozenset({"instrument", "skymap", "band", "physical_filter"})
"""What a data ID has to name more than, for it to be one of many."""

_LEFT = frozenset({Action.HOLD, Action.IGNORE})
"""What is done about a failure that stays one."""


def judge(
    policies: Sequence[FailurePolicy],
    request: StepRequest,
    failures: Iterable[QuantumFailure],
    exit_codes: Mapping[str, frozenset[int]],
    *,
    tried: Mapping[Quantum, int],
) -> list[Judgement]:
    """Decide what is done about each failure of a submission.

    Parameters
    ----------
    policies
        The release's.
    request
        What was submitted; says how much memory was asked for.
    failures
        What failed.
    exit_codes
        Of the jobs that failed, by job label: a job of several tasks has a label of its own, so that for a task without
        jobs of its own all of them count.
    tried
        How many submissions have tried each quantum, this one among them.
    """
    all_codes = frozenset[int]().union(*exit_codes.values())
    return [
        Judgement(
            failure,
            _but_not_whole(
                failure,
                decide(
                    policies,
                    Failure(failure.task, failure.exception, failure.message, exit_codes.get(failure.task, all_codes)),
                    attempt=tried[failure.quantum],
                    memory_mb=memory_tried(request.bps, failure),
                    limit_mb=limit_of(request.bps, failure.task),
                ),
            ),
        )
        for failure in failures
    ]


def _but_not_whole(failure: QuantumFailure, decision: Decision) -> Decision:
    """Hold what would leave out the whole release with a whole-step task's one data ID, or a whole band of it."""
    if decision.action is Action.QUARANTINE and failure.data_id.keys() <= _WHOLE:
        return Decision(Action.HOLD, f"{decision.policy}: too much to quarantine")
    return decision


def is_rescue_due(judgements: Sequence[Judgement], outcome: Outcome) -> bool:
    """Say whether anything is gained by submitting again.

    Parameters
    ----------
    judgements
        Of the outcome's failures.
    outcome
        What is done: what waits for a data ID that is now quarantined can be done without it.
    """
    actions = {each.decision.action for each in judgements}
    is_something_blocked = any(task.blocked for task in outcome.tasks.values())
    return any(action.is_repeated for action in actions) or (Action.QUARANTINE in actions and is_something_blocked)


def rescue_of(request: StepRequest, judgements: Sequence[Judgement], key: SubmissionKey, folder: Path) -> StepRequest:
    """Write the request that does again what was decided to, and nothing else.

    Parameters
    ----------
    request
        What failed.
    judgements
        What is done about its failures.
    key, folder
        The next attempt's.
    """
    by_task: defaultdict[str, list[Decision]] = defaultdict(list)
    for each in judgements:
        by_task[each.failure.task].append(each.decision)
    left = [each.failure for each in judgements if each.decision.action in _LEFT]
    return dataclasses.replace(
        request,
        key=key,
        folder=folder,
        skip_existing_in=(request.key.run_collection, *request.skip_existing_in),
        quarantined=(*request.quarantined, *(data_id for data_id, _ in quarantined_in(judgements))),
        later=(*request.later, *((failure.task, failure.data_id) for failure in left)),
        bps=with_memory(request.bps, memory_by_task(by_task)),
    )


def quarantined_in(judgements: Iterable[Judgement]) -> list[tuple[Mapping[str, int | str], Judgement]]:
    """Give the data IDs that are to be left out from now on, each once, with why.

    Parameters
    ----------
    judgements
        What was decided.
    """
    chosen = (each for each in judgements if each.decision.action is Action.QUARANTINE)
    by_data_id = {frozenset(each.failure.data_id.items()): each for each in chosen}
    return [(each.failure.data_id, each) for each in by_data_id.values()]


def combine(before: Outcome, after: Outcome | None, left: Iterable[QuantumFailure] = ()) -> Outcome:
    """Make one outcome of a submission and its rescue.

    Parameters
    ----------
    before
        The submission's; what it expected is what is expected still.
    after
        The rescue's; None when there was nothing left to do.
    left
        The failures that the rescue didn't try again, and that aren't quarantined.
    """
    left = tuple(left)
    still = Counter(failure.task for failure in left)
    quanta_left = {failure.quantum for failure in left}
    # That something was listed or held is no news of what has been done since.
    judgements = [
        each for each in before.judgements if each.decision.action not in _LEFT or each.failure.quantum in quanta_left
    ]
    tasks_after = after.tasks if after else {}
    datasets_after = after.datasets if after else {}
    failures = (*left, *(after.failures if after else ()))
    return dataclasses.replace(
        after or before,
        tasks={
            label: _combined_task(
                before.tasks.get(label, TaskOutcome()), tasks_after.get(label, TaskOutcome()), still[label]
            )
            for label in {**before.tasks, **tasks_after}
        },
        failures=failures,
        datasets={
            place: _combined_count(
                before.datasets.get(place, DatasetCount()), datasets_after.get(place, DatasetCount())
            )
            for place in {**before.datasets, **datasets_after}
        },
        cpu_s=before.cpu_s + (after.cpu_s if after else 0.0),
        peak_memory_mb=max(before.peak_memory_mb, after.peak_memory_mb if after else 0.0),
        wall_s=before.wall_s + (after.wall_s if after else 0.0),
        judgements=(*judgements, *(after.judgements if after else ())),
    )


def _combined_task(before: TaskOutcome, after: TaskOutcome, still_failed: int) -> TaskOutcome:
    expected = before.expected or after.expected
    succeeded = min(before.succeeded + after.succeeded, expected)
    failed = min(after.failed + still_failed, expected - succeeded)
    return TaskOutcome(
        expected, succeeded, failed, min(before.caveats + after.caveats, succeeded), expected - succeeded - failed
    )


def _combined_count(before: DatasetCount, after: DatasetCount) -> DatasetCount:
    expected = before.expected or after.expected
    # A quantum that failed late has left some of its outputs, and its rescue makes them again.
    return DatasetCount(min(before.count + after.count, expected), before.bytes + after.bytes, expected)


def cases_of(request: StepRequest, judgements: Iterable[Judgement], run_id: str) -> list[Case]:
    """Give what the casebook keeps.

    Parameters
    ----------
    request
        What was submitted.
    judgements
        What was decided.
    run_id
        The Dagster run's.
    """
    key = request.key
    return [
        Case(
            release=key.release,
            step=key.step,
            submission=key.name,
            dagster_run=run_id,
            task=failure.task,
            data_id=failure.data_id,
            exception=failure.exception,
            message=failure.message,
            log=failure.log,
            action=decision.action.value,
            policy=decision.policy,
            memory_mb=decision.memory_mb,
            node=failure.node or None,
            used_mb=round(failure.memory_mb, 1) or None,
        )
        for failure, decision in ((each.failure, each.decision) for each in judgements)
    ]


def judgements_from(cases: Iterable[Case], failures: Iterable[QuantumFailure]) -> list[Judgement]:
    """Find out which failures were listed or held when they were last decided about: what earlier runs have left.

    Parameters
    ----------
    cases
        What the casebook has of the submissions that left them, the latest first.
    failures
        Those that are still left.
    """
    last: dict[Quantum, Decision] = {}
    for case in cases:
        decision = Decision(Action(case.action), case.policy, case.memory_mb)
        last.setdefault(quantum_of(case.task, case.data_id), decision)
    judgements = (Judgement(each, last[each.quantum]) for each in failures if each.quantum in last)
    return [each for each in judgements if each.decision.action in _LEFT]
