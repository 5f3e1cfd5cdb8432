"""Failure policies: what is done about a quantum that failed, as the release says it.

Belongs here: the models of a release's ``policies:``, the defaults, and the pure function from (policies, failure,
attempts so far) to a decision. Doesn't: what failed (`launchers.outcome`), carrying a decision out or writing it down
(`launchers.policies`). What BPS retries inside a submission has been retried before a policy is asked.
"""

from __future__ import annotations

import enum
import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from resources.documents import Document


class Action(enum.StrEnum):
    """What is done about a failure."""

    RETRY = "retry"
    """The same again, in a rescue."""

    MORE_MEMORY = "more_memory"
    """The same again with more memory, up to a limit."""

    QUARANTINE = "quarantine"
    """The data ID is left out from now on, until somebody readmits it."""

    HOLD = "hold"
    """Nothing that depends on it goes on before somebody has decided."""

    IGNORE = "ignore"
    """It is listed with its cause, and whether enough has succeeded is the completeness check's to say."""

    @property
    def is_repeated(self) -> bool:
        """Whether the quantum is done again without being asked for."""
        return self in {Action.RETRY, Action.MORE_MEMORY}


class FailurePolicy(Document):
    """One rule: which failures it is for, and what is done about them; what isn't said matches everything."""

    name: str = Field(description="what the record calls it")
    tasks: tuple[str, ...] = Field((), description="task labels, with * and ?; none: every task")
    exit_codes: tuple[int, ...] = Field((), description="of the job that the quantum was lost in, or that reported it")
    exception: str | None = Field(None, description="regular expression, found anywhere in the exception's full name")
    message: str | None = Field(None, description="regular expression, found anywhere in the message's first line")
    action: Action
    attempts: Annotated[int, Field(gt=0)] = Field(
        2, description="submissions that may try it, the first among them, before `then` is done"
    )
    factor: Annotated[float, Field(gt=1)] = Field(2.0, description="more_memory: each time so many times as much")
    limit_mb: Annotated[int, Field(gt=0)] | None = Field(
        None, description="more_memory: never more than this; none: the site's memoryLimit"
    )
    then: Action = Field(Action.IGNORE, description="what is done when attempts or memory are used up")

    @field_validator("exception", "message")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _comes_to_an_end(self) -> Self:
        if self.then.is_repeated:
            raise ValueError("`then` is what is done instead of trying again: hold, quarantine or ignore")
        return self

    def matches(self, failure: Failure) -> bool:
        """Say whether the rule is for this failure.

        Parameters
        ----------
        failure
            What failed.
        """
        return (
            (not self.tasks or any(fnmatch.fnmatchcase(failure.task, pattern) for pattern in self.tasks))
            and (not self.exit_codes or not failure.exit_codes.isdisjoint(self.exit_codes))
            and (self.exception is None or re.search(self.exception, failure.exception) is not None)
            and (self.message is None or re.search(self.message, failure.message) is not None)
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed quantum, as far as a policy looks at it.

    Parameters
    ----------
    task
        Task label.
    exception
        Full name of the exception's type; empty where the quantum doesn't say.
    message
        First line of its message.
    exit_codes
        Of the failed jobs that the task was in.
    """

    task: str
    exception: str
    message: str
    exit_codes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one failure, by which rule, and with how much memory where that changes."""

    action: Action
    policy: str
    memory_mb: int | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether the quantum is done again without being asked for."""
        return self.action.is_repeated


LOST = "QuantumLost"
NO_RECORDS = "GraphWithoutDatastoreRecords"
UNMATCHED = "otherwise"

DEFAULTS: tuple[FailurePolicy, ...] = (
    FailurePolicy(
        name="out of memory",
        exception=r"MemoryError$|bad_alloc",
        action=Action.MORE_MEMORY,
        attempts=3,
    ),
    FailurePolicy(
        name="out of memory", exception=rf"{LOST}$", message="^out of memory", action=Action.MORE_MEMORY, attempts=3
    ),
    # It may hang for ever, and then it takes a node's time for nothing each time.
    FailurePolicy(name="out of time", exception=rf"{LOST}$", message="^out of time", action=Action.HOLD),
    FailurePolicy(
        name="lost with its node",
        exception=rf"{LOST}$",
        message="^(lost with (its )?node|preempted)",
        action=Action.RETRY,
        attempts=3,
    ),
    # A quantum that left neither log nor metadata was killed with its process, most often for its memory.
    FailurePolicy(name="lost", exception=rf"{LOST}$", action=Action.MORE_MEMORY, attempts=3),
    FailurePolicy(
        name="connection",
        exception=r"ConnectionError$|ConnectionResetError$|Timeout(Error)?$|HTTPError$|SSLError$|OperationalError$"
        r"|EndpointConnectionError$|BrokenPipeError$",
        action=Action.RETRY,
        attempts=3,
    ),
    FailurePolicy(
        name="broken software",
        exception=rf"ImportError$|ModuleNotFoundError$|SyntaxError$|FieldValidationError$|{NO_RECORDS}$",
        action=Action.HOLD,
    ),
)
"""What holds after the release's own policies: memory, nodes and connections again, what hangs and what no data can
cause held; the rest is listed, and doesn't keep a night from going on."""


def decide(
    policies: Sequence[FailurePolicy], failure: Failure, *, attempt: int, memory_mb: int, limit_mb: int
) -> Decision:
    """Decide what is done about a failure: the first rule that matches says so.

    Parameters
    ----------
    policies
        The release's; `DEFAULTS` come after them.
    failure
        What failed.
    attempt
        The submission in which it failed, counted from 1 by those that have tried it.
    memory_mb
        The most that its jobs have asked for.
    limit_mb
        The most that a job may ask for at this site.
    """
    policy = next((each for each in (*policies, *DEFAULTS) if each.matches(failure)), None)
    if policy is None:
        return Decision(Action.IGNORE, UNMATCHED)
    if not policy.action.is_repeated:
        return Decision(policy.action, policy.name)
    if attempt >= policy.attempts:
        return Decision(policy.then, policy.name)
    if policy.action is Action.RETRY:
        return Decision(Action.RETRY, policy.name)
    most = min(limit_mb, policy.limit_mb or limit_mb)
    if memory_mb >= most:
        return Decision(policy.then, policy.name)
    return Decision(Action.MORE_MEMORY, policy.name, min(math.ceil(memory_mb * policy.factor), most))


def memory_by_task(decisions: Mapping[str, Sequence[Decision]]) -> dict[str, int]:
    """Give the memory that each task's jobs are to ask for: the most that any of its failures needs.

    Parameters
    ----------
    decisions
        By task label.
    """
    asked = {task: [each.memory_mb for each in made if each.memory_mb] for task, made in decisions.items()}
    return {task: max(values) for task, values in asked.items() if values}
