"""A worker that sees for itself that its run is to end, whoever has cancelled it from wherever."""

from types import SimpleNamespace

import dagster as dg
import pytest

from launchers import wanted
from launchers.wanted import interruption_of

STATUS = dg.DagsterRunStatus


def context_of(*answers: STATUS | Exception) -> SimpleNamespace:
    """The context of a run that has one status after another, as far as its database answers."""
    left = list(answers)

    def get_run_by_id(_: str) -> dg.DagsterRun:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dg.DagsterRun("job", status=answer)

    return SimpleNamespace(run_id="run", instance=SimpleNamespace(get_run_by_id=get_run_by_id), left=left)


@pytest.mark.parametrize("status", [STATUS.CANCELING, STATUS.CANCELED, STATUS.FAILURE])
def test_a_worker_is_interrupted_once_its_run_is_not_wanted_any_more(status: STATUS, monkeypatch) -> None:
    monkeypatch.setattr(wanted, "ASK_EVERY_S", 0.0)
    interrupt_unless_wanted = interruption_of(context_of(STATUS.STARTED, status))
    interrupt_unless_wanted()

    with pytest.raises(dg.DagsterExecutionInterruptedError, match=f"its run is {status.value.lower()}"):
        interrupt_unless_wanted()


def test_a_database_that_is_away_ends_no_watching(monkeypatch) -> None:
    monkeypatch.setattr(wanted, "ASK_EVERY_S", 0.0)
    context = context_of(OSError("no route"), STATUS.STARTED)
    interrupt_unless_wanted = interruption_of(context)

    interrupt_unless_wanted()
    interrupt_unless_wanted()

    assert context.left == []


def test_dagster_is_not_asked_at_each_poll() -> None:
    context = context_of(STATUS.CANCELING)

    interrupt_unless_wanted = interruption_of(context)

    for _ in range(100):
        interrupt_unless_wanted()

    assert context.left == [STATUS.CANCELING]
