"""One dispatcher and several workflows, on a Slurm that has nothing to say but where their own dispatchers wait."""

from __future__ import annotations

import errno
import io
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launchers.slurm import dispatcher as dispatcher_module
from launchers.slurm.conductor import Conductor
from launchers.slurm.dispatcher import COMMENT, JOB_NAME, Dispatcher, dispatcher_options, kept_waiting
from launchers.slurm.jobs import Element, Job, Request
from launchers.slurm.plan import Plan
from launchers.slurm.queue import Queue, Queued
from launchers.slurm.store import JobStore
from resources.errors import Retriable

FACTS = {"name": "w", "user": "me", "poll_s": 0.0, "most_jobs": None, "dispatcher": [], "array_size": 1000}


class QuietSlurm:
    """Has the dispatchers of some folders in its queue, and takes whatever it is given."""

    job_limit = 1000

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.cancelled: list[str] = []
        self.states: dict[int, str] = {}

    def queue(self, user: str) -> Queue:
        waiting = [
            Queued(
                number,
                Element(number, 0),
                self.states.get(number, "PENDING"),
                name=f"{JOB_NAME}-0",
                comment=COMMENT,
                folder=str(folder),
            )
            for number, folder in enumerate(self.folders, start=1)
        ]
        return Queue({queued.element: queued for queued in waiting})

    def accounts(self, names: object) -> dict[Element, object]:
        return {}

    def submit(self, options: object, script: object) -> int:
        raise Retriable("Slurm doesn't answer")

    def cancel_elements(self, elements: object) -> None: ...

    def cancel(self, names: list[str]) -> None:
        self.cancelled += names


class FullLog(io.StringIO):
    """A log on a disk without room."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> QuietSlurm:
    found = QuietSlurm()
    conduct = dispatcher_module.Conductor
    monkeypatch.setattr(dispatcher_module, "Conductor", lambda store: conduct(store, found))  # type: ignore[arg-type]
    return found


@pytest.fixture
def workflow(slurm: QuietSlurm, tmp_path: Path) -> Callable[[str], JobStore]:
    """Make a workflow that is over as soon as somebody looks at it."""

    def make(name: str) -> JobStore:
        store = JobStore(tmp_path / name)
        store.create(Plan([Job("gate", "gate", has_command=False)], [Request("gate")]), ["true\n"], FACTS)
        slurm.folders.append(store.submit_path)
        return store

    return make


def is_over(store: JobStore) -> bool:
    return bool(store.read_facts().get("ended_at"))


def spoil(store: JobStore) -> None:
    (store.submit_path / "ended").rmdir()


def mend(store: JobStore) -> None:
    (store.submit_path / "ended").mkdir()


def singleton(**asked) -> str:
    """Name what of a user's dispatchers only one runs at a time."""
    options = dispatcher_options(Path("/submit"), Request("slurmDispatcher", memory_mb=512, **asked))
    assert "--dependency=singleton" in options
    (name,) = [option for option in options if option.startswith("--job-name=")]
    return name.removeprefix("--job-name=")


def test_a_dispatcher_keeps_nobody_waiting_but_those_that_ask_for_the_same():
    small = ("--partition=small",)

    assert singleton() == singleton()
    assert len({singleton(), singleton(options=small), singleton(options=small, walltime_min=100)}) == 3
    assert singleton().startswith(f"{JOB_NAME}-")


def waiting(*reasons: str) -> list[str]:
    """Name what keeps all dispatchers waiting, of which each has its own reason; one without runs."""
    states = enumerate(reasons, start=1)
    found = [
        Queued(
            number,
            Element(number, 0),
            "PENDING" if reason else "RUNNING",
            reason=reason,
            name=f"{JOB_NAME}-{number}",
            comment=COMMENT,
        )
        for number, reason in states
    ]
    return [each.reason for each in kept_waiting(Queue({each.element: each for each in found}))]


def test_what_keeps_all_dispatchers_waiting_is_known_and_nothing_where_one_runs_or_is_about_to():
    assert waiting("PartitionTimeLimit", "Dependency") == ["PartitionTimeLimit"]
    assert waiting("PartitionDown", "JobHeldUser") == ["PartitionDown", "JobHeldUser"]
    assert waiting("launch failed requeued held", "Dependency") == ["launch failed requeued held"]
    assert waiting("PartitionTimeLimit", "") == []
    assert waiting("PartitionTimeLimit", "Priority") == []
    assert waiting("Dependency") == []


def test_a_dispatcher_whose_workflow_another_conducts_asks_slurm_less_and_less_often(slurm, workflow):
    other, own = (Dispatcher(workflow("one").submit_path, slurm) for _ in range(2))
    other._take(str(own._own))
    pauses = []
    for _ in range(7):
        own._ask()
        pauses.append(own._idle_s)

    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    other._leave(str(own._own))
    own._ask()
    assert own._idle_s == 1.0


@pytest.mark.parametrize("own", ["broken", "sound"])
def test_a_folder_that_cannot_be_used_halts_no_other_workflow(slurm, workflow, capsys, own):
    broken, sound = workflow("broken"), workflow("sound")
    spoil(broken)
    dispatcher = Dispatcher({"broken": broken, "sound": sound}[own].submit_path, slurm)

    dispatcher.turn()

    assert is_over(sound)
    assert not is_over(broken)
    assert f"{broken.submit_path}: No such file or directory" in capsys.readouterr().out
    assert "1" not in slurm.cancelled


def test_a_workflow_that_was_left_is_gone_on_with_after_a_while(slurm, workflow, monkeypatch):
    broken = workflow("broken")
    spoil(broken)
    dispatcher = Dispatcher(broken.submit_path, slurm)
    dispatcher.turn()
    mend(broken)
    monkeypatch.setattr(dispatcher_module, "_IDLE_S", 0.0)

    dispatcher.turn()
    assert not is_over(broken)
    with broken.locked() as mine:
        assert mine
    now = time.monotonic() + dispatcher_module.REST_S
    monkeypatch.setattr(time, "monotonic", lambda: now)
    dispatcher.turn()

    assert is_over(broken)


def test_what_waits_for_a_workflow_that_is_over_is_called_off_and_what_runs_leaves_by_itself(slurm, workflow):
    own, twice, other = workflow("own"), workflow("twice"), workflow("other")
    slurm.folders.append(twice.submit_path)
    slurm.states = {1: "RUNNING", 3: "RUNNING"}

    Dispatcher(own.submit_path, slurm).turn()

    assert is_over(own)
    assert is_over(other)
    assert sorted(slurm.cancelled) == ["2", "4"]


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_dispatcher_that_is_told_goes_back_into_the_queue_however_long_slurm_is_away(
    slurm, workflow, monkeypatch, capsys
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(dispatcher_module, "_AGAIN_S", 0.0)
    own = workflow("own")
    asked: list[str] = []

    def requeue(job: str) -> None:
        asked.append(job)
        if len(asked) < 3:
            raise Retriable("Slurm doesn't answer")

    monkeypatch.setattr(slurm, "requeue", requeue, raising=False)
    monkeypatch.setattr(Dispatcher, "turn", lambda self: signal.raise_signal(signal.SIGUSR1))

    Dispatcher(own.submit_path, slurm).run()

    assert asked == ["7"] * 3
    assert "it cannot go back into the queue: Slurm doesn't answer" in capsys.readouterr().out


def test_a_dispatcher_that_is_told_does_not_ask_for_one_workflow_after_the_other(slurm, workflow, monkeypatch):
    dispatcher = Dispatcher(workflow("one").submit_path, slurm)
    workflow("other")
    dispatcher._ask()
    act = Conductor.act
    acted = []

    def act_and_be_told(self: Conductor) -> None:
        acted.append(self)
        dispatcher._be_told(signal.SIGUSR1, None)
        act(self)

    monkeypatch.setattr(Conductor, "act", act_and_be_told)
    dispatcher.turn()

    assert len(acted) == 1


def test_a_log_that_takes_nothing_halts_nobody(slurm, workflow, monkeypatch):
    broken, sound = workflow("broken"), workflow("sound")
    spoil(broken)
    monkeypatch.setattr("sys.stdout", FullLog())

    Dispatcher(broken.submit_path, slurm).turn()

    assert is_over(sound)


@pytest.mark.parametrize("file", ["workflow.json", "journal.jsonl"])
def test_a_record_that_cannot_be_read_halts_no_other_workflow_and_keeps_no_dispatcher(slurm, workflow, capsys, file):
    spoilt, sound = workflow("spoilt"), workflow("sound")
    (spoilt.submit_path / file).write_text("")

    Dispatcher(sound.submit_path, slurm).turn()
    Dispatcher(spoilt.submit_path, slurm).run()

    assert is_over(sound)
    assert f"{spoilt.submit_path}: the record of this workflow cannot be read" in capsys.readouterr().out
