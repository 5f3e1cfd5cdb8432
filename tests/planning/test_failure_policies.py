"""What is done about a failure, decided without touching anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from launchers import job_ends, outcome
from planning import policies
from planning.policies import Action, Decision, Failure, FailurePolicy, decide, memory_by_task
from planning.release import read_release
from resources.errors import Rejected

DEMO = Path(__file__).parents[2] / "releases" / "demo.yaml"
SOURCE = Failure("calibrateImage", "lsst.meas.NoStars", "too few stars")
ACTIONS = st.sampled_from(list(Action))
ENDS = st.sampled_from([Action.HOLD, Action.IGNORE, Action.QUARANTINE])


def decided(failure: Failure, *rules: FailurePolicy, attempt: int = 1, memory_mb: int = 2048) -> Decision:
    return decide(rules, failure, attempt=attempt, memory_mb=memory_mb, limit_mb=100_000)


def test_the_first_policy_that_matches_decides() -> None:
    first = FailurePolicy(name="stars", exception="NoStars", action=Action.QUARANTINE)
    second = FailurePolicy(name="all", action=Action.HOLD)
    assert decided(SOURCE, first, second) == Decision(Action.QUARANTINE, "stars")
    assert decided(SOURCE, second, first) == Decision(Action.HOLD, "all")


@pytest.mark.parametrize(
    ("criteria", "matches"),
    [
        ({}, True),
        ({"tasks": ("calibrate*",)}, True),
        ({"tasks": ("isr", "calibrateImage")}, True),
        ({"tasks": ("isr",)}, False),
        ({"exception": "NoStars$"}, True),
        ({"exception": "^NoStars"}, False),
        ({"message": "few stars"}, True),
        ({"message": "many stars"}, False),
        ({"exit_codes": (137,)}, False),
        ({"tasks": ("calibrateImage",), "message": "many"}, False),
    ],
)
def test_all_that_a_policy_names_has_to_match(criteria: dict, matches: bool) -> None:
    assert FailurePolicy(name="p", action=Action.HOLD, **criteria).matches(SOURCE) is matches


def test_an_exit_code_of_the_failed_jobs_is_enough() -> None:
    killed = Failure("isr", "", "", frozenset({1, 137}))
    assert FailurePolicy(name="p", exit_codes=(137, 139), action=Action.RETRY).matches(killed)


def test_a_failure_that_nothing_is_said_of_is_listed_and_no_more() -> None:
    assert decided(SOURCE) == Decision(Action.IGNORE, policies.UNMATCHED)


@pytest.mark.parametrize(
    ("exception", "action"),
    [
        ("MemoryError", Action.MORE_MEMORY),
        (outcome.LOST, Action.MORE_MEMORY),
        ("requests.exceptions.ConnectionError", Action.RETRY),
        ("botocore.exceptions.EndpointConnectionError", Action.RETRY),
        ("sqlalchemy.exc.OperationalError", Action.RETRY),
        ("ModuleNotFoundError", Action.HOLD),
        # Odd data find such faults too, and three of them are no reason to stop a night.
        ("AttributeError", Action.IGNORE),
        (outcome.NO_RECORDS, Action.HOLD),
        ("lsst.pipe.base.AnnotatedPartialOutputsError", Action.IGNORE),
    ],
)
def test_defaults_suit_what_goes_wrong_most_often(exception: str, action: Action) -> None:
    assert decided(Failure("isr", exception, "")).action is action


@pytest.mark.parametrize(
    ("ending", "decision"),
    [
        (job_ends.OUT_OF_MEMORY, Decision(Action.MORE_MEMORY, "out of memory", 4096)),
        (job_ends.OUT_OF_TIME, Decision(Action.HOLD, "out of time")),
        (f"{job_ends.LOST_WITH_NODE} node n1", Decision(Action.RETRY, "lost with its node")),
        ("lost without a trace", Decision(Action.MORE_MEMORY, "lost", 4096)),
    ],
)
def test_what_ended_its_job_says_what_is_done_about_a_lost_quantum(ending: str, decision: Decision) -> None:
    assert decided(Failure("isr", outcome.LOST, f"{ending}: its job was ended before it could say more")) == decision


def test_a_release_can_overrule_the_defaults() -> None:
    rule = FailurePolicy(name="bad node", exception="MemoryError", action=Action.HOLD)
    assert decided(Failure("isr", "MemoryError", ""), rule) == Decision(Action.HOLD, "bad node")


def test_memory_grows_by_the_factor_until_the_limit_and_then_something_else_is_done() -> None:
    rule = FailurePolicy(
        name="m", action=Action.MORE_MEMORY, attempts=9, factor=1.5, limit_mb=4000, then=Action.QUARANTINE
    )
    assert decided(SOURCE, rule, memory_mb=2048).memory_mb == 3072
    assert decided(SOURCE, rule, memory_mb=3072).memory_mb == 4000
    assert decided(SOURCE, rule, memory_mb=4000) == Decision(Action.QUARANTINE, "m")


def test_the_task_gets_the_most_that_any_of_its_failures_needs() -> None:
    made = {
        "isr": [Decision(Action.MORE_MEMORY, "m", 4096), Decision(Action.MORE_MEMORY, "m", 8192)],
        "coadd": [Decision(Action.RETRY, "r")],
    }
    assert memory_by_task(made) == {"isr": 8192}


@given(
    action=ACTIONS,
    then=ENDS,
    attempts=st.integers(1, 20),
    factor=st.floats(1.01, 10),
    limit=st.integers(1, 10**6),
    site=st.integers(1, 10**6),
    memory=st.integers(1, 10**6),
)
def test_every_failure_comes_to_an_end_within_its_attempts_and_its_memory(
    action: Action, then: Action, attempts: int, factor: float, limit: int, site: int, memory: int
) -> None:
    rule = FailurePolicy(name="p", action=action, then=then, attempts=attempts, factor=factor, limit_mb=limit)
    asked = memory
    for attempt in range(1, attempts + 1):
        made = decide([rule], SOURCE, attempt=attempt, memory_mb=asked, limit_mb=site)
        if not made.is_repeated:
            break
        if made.memory_mb is not None:
            assert asked < made.memory_mb <= min(limit, site)
            asked = made.memory_mb
    assert made.action in {then, action} - {Action.RETRY, Action.MORE_MEMORY}


@given(st.text(max_size=20), st.text(max_size=40), st.sets(st.integers(0, 255), max_size=3))
def test_every_failure_gets_a_decision_that_says_by_which_rule(exception: str, message: str, codes: set[int]) -> None:
    made = decided(Failure("isr", exception, message, frozenset(codes)))
    assert made.policy in {policies.UNMATCHED, *(rule.name for rule in policies.DEFAULTS)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "retry", "then": "more_memory"},
        {"action": "retry", "exception": "("},
        {"action": "explode"},
        {"action": "retry", "attempts": 0},
        {"action": "more_memory", "factor": 1.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        FailurePolicy.model_validate({"name": "p"} | wrong)


def test_policies_are_part_of_the_release_and_checked_with_it(tmp_path: Path) -> None:
    path = tmp_path / "releases" / "demo.yaml"
    path.parent.mkdir()
    section = "policies:\n  - {name: stars, tasks: [calibrateImage], exception: NoStars, action: quarantine}\n"
    path.write_text(DEMO.read_text() + section)
    assert read_release(path).policies[0].action is Action.QUARANTINE
    path.write_text(DEMO.read_text() + section.replace("exception", "excepton"))
    with pytest.raises(Rejected, match=r"policies\.0\.excepton: unknown key; did you mean 'exception'"):
        read_release(path)
