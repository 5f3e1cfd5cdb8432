"""Which attempt a run is, when runs before it have left their submissions running."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from launchers.attempts import attempts_of
from launchers.bps import Handle
from launchers.claiming import Others, claim_attempt, settle
from launchers.submission import StepRequest, SubmissionKey
from resources.errors import Rejected

WORK = SubmissionKey("dr1", "step1a", ("20261101",))
SAME, OTHER = "what was asked for", "something else"


def number(folder: Path) -> int:
    """The attempt whose folder it is."""
    return int(folder.name.rpartition("_")[2])


class Site:
    """What lives, and what runs."""

    def __init__(self, submissions: Path) -> None:
        self.submissions = submissions
        self.living: set[str] = set()
        self.running: set[int] = set()
        self.states: dict[int, str] = {}
        self.repeated: set[str] = set()
        self.told: list[str] = []

    def _handle(self, folder: Path) -> Handle | None:
        attempt = number(folder)
        return Handle("the.Service", f"id-{attempt}", folder.name, str(folder)) if attempt in self.running else None

    def _state(self, folder: Path) -> str:
        return self.states.get(number(folder), "")

    def claim(self, run: str, asked: str = SAME, *, rescue: bool = False, first: int = 1) -> int:
        """Claim an attempt, and say which."""
        lives, is_repeated = self.living.__contains__, self.repeated.__contains__
        others = Others(lives, self._handle, is_repeated, self._state, self.told.append)
        work = SubmissionKey(WORK.release, WORK.step, WORK.partitions, first)
        key, folder = claim_attempt(self.submissions, work, run, is_rescue=rescue, asked=asked, others=others)
        assert folder.name == key.name
        return key.attempt

    def owners(self) -> list[str]:
        return [attempt.run_id for attempt in attempts_of(self.submissions, WORK.release, WORK.step)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_still_runs_without_its_run_is_taken_over_by_one_that_asks_for_the_same(site: Site) -> None:
    site.claim("dead")
    site.running = {1}

    assert site.claim("next") == 1

    assert site.owners() == ["next"]
    assert site.told == [f"attempt 1 of {WORK.work} still runs, without run dead: watching it"]
    assert site.claim("next") == 1


def test_what_ended_when_its_run_was_gone_is_judged_by_the_run_that_repeats_it(site: Site) -> None:
    site.claim("dead")
    site.claim("dead", "", rescue=True, first=2)
    site.states, site.repeated = {1: "FAILED", 2: "SUCCEEDED"}, {"dead"}

    assert site.claim("next") == 1

    assert site.owners() == ["next", "next"]
    assert site.told == [f"{WORK.work} ended when run dead was gone: judging it"]


def test_a_rescue_that_was_claimed_and_never_submitted_hides_nothing_that_ended(site: Site) -> None:
    site.claim("dead")
    site.claim("dead", "", rescue=True, first=2)
    site.states, site.repeated = {1: "FAILED"}, {"dead"}

    assert site.claim("next") == 1


@pytest.mark.parametrize("state", ["DELETED", ""])
def test_what_was_cancelled_or_never_submitted_is_begun_anew(site: Site, state: str) -> None:
    site.claim("dead")
    site.states, site.repeated = {1: state}, {"dead"}

    assert site.claim("next") == 2


def test_what_cannot_be_judged_is_handed_on_once(site: Site) -> None:
    site.claim("dead")
    site.states, site.repeated = {1: "FAILED"}, {"dead", "second"}

    assert site.claim("second") == 1
    assert site.claim("third") == 2


def test_what_dagster_knows_of_is_done_again_by_whoever_asks_for_it(site: Site) -> None:
    site.claim("whole")
    site.states, site.repeated = {1: "FAILED"}, {"whole"}
    settle(site.submissions, WORK, "whole")

    assert site.claim("next") == 2

    assert site.owners() == ["whole", "next"]


@pytest.mark.parametrize(
    ("asked", "rescue", "repeated"), [(OTHER, False, True), (SAME, True, True), ("", False, True), (SAME, False, False)]
)
def test_what_ended_unheard_is_left_to_those_who_repeat_it(
    site: Site, asked: str, rescue: bool, repeated: bool
) -> None:
    site.claim("dead")
    site.states, site.repeated = {1: "SUCCEEDED"}, {"dead"} if repeated else set()

    assert site.claim("next", asked, rescue=rescue) == 2


def test_what_never_came_to_its_end_is_begun_anew(site: Site) -> None:
    site.claim("dead")
    assert site.claim("next") == 2
    assert site.owners() == ["dead", "next"]


@pytest.mark.parametrize(("asked", "rescue"), [(OTHER, False), (OTHER, True), ("", False)])
def test_nothing_else_is_submitted_beside_what_still_runs(site: Site, asked: str, rescue: bool) -> None:
    site.claim("dead")
    site.running = {1}

    with pytest.raises(Rejected, match=r"attempt 1 still runs .* bps cancel .* --id id-1$"):
        site.claim("next", asked, rescue=rescue)

    assert site.owners() == ["dead"]


@pytest.mark.parametrize("running", [set(), {1}])
def test_a_run_keeps_away_from_another_that_lives(site: Site, running: set[int]) -> None:
    site.claim("living")
    site.living, site.running = {"living"}, running

    with pytest.raises(Rejected, match="attempt 1 is under way in run living; wait for that run, or terminate it"):
        site.claim("next")

    assert site.owners() == ["living"]


def test_rescues_leave_what_they_have_done_to_the_next_one(site: Site) -> None:
    site.claim("whole")
    assert site.claim("one", rescue=True) == 2
    site.living = {"one"}
    assert site.claim("two", rescue=True) == 3


def test_the_rescues_of_a_run_are_taken_over_with_it(site: Site) -> None:
    site.claim("dead")
    site.claim("dead", "", rescue=True, first=2)
    site.running = {2}

    assert site.claim("next") == 1

    assert site.owners() == ["next", "next"]
    assert site.claim("next", "", rescue=True, first=2) == 2


def test_a_worker_that_died_while_it_took_over_takes_over_the_rest_when_it_resumes(site: Site) -> None:
    site.claim("dead")
    site.claim("dead", "", rescue=True, first=2)
    first = attempts_of(site.submissions, WORK.release, WORK.step)[0]
    (first.folder / "dagster_run").write_text("dead\nnext")
    site.running = {2}

    assert site.claim("next") == 1
    assert site.owners() == ["next", "next"]


def test_a_run_goes_on_from_its_own_attempt_to_its_rescue(site: Site) -> None:
    site.claim("living")
    site.living = {"living"}
    assert site.claim("living", "", rescue=True, first=2) == 2


def test_of_many_runs_that_come_at_once_one_takes_over(site: Site) -> None:
    site.claim("dead")
    site.running = {1}
    runs = [f"run {number}" for number in range(8)]
    site.living = set(runs)
    together = threading.Barrier(len(runs))
    claimed: list[tuple[str, int]] = []

    def come(run: str) -> None:
        together.wait()
        try:
            claimed.append((run, site.claim(run)))
        except Rejected as error:
            assert "is under way in run" in str(error)  # noqa: PT017 - the others' errors are what this is about

    threads = [threading.Thread(target=come, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ((winner, attempt),) = claimed
    assert attempt == 1
    assert site.owners() == [winner]


def test_requests_ask_for_the_same_whichever_attempts_they_are_and_whatever_is_quarantined(tmp_path: Path) -> None:
    def asked(*, attempt: int = 1, **changes) -> str:
        key = SubmissionKey("dr1", "step1a", ("20261101",), attempt)
        values = {"butler": "repo", "pipeline": "p", "input_collections": ("i",), "output_chain": "c", "data_query": ""}
        return StepRequest(key, **values | {"folder": tmp_path / str(attempt)} | changes).asked()

    assert asked() == asked(attempt=2, quarantined=({"visit": 7},))
    others = [asked(config_overrides=("a:b=1",)), asked(bps={"requestMemory": 1}), asked(data_query="visit = 1")]
    assert len({asked(), *others}) == 4
