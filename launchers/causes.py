"""Causes: what failed and what is done about it, in as many lines as a person reads.

Belongs here: what failures have in common whose messages differ by their numbers and files only, and lines about them.
Doesn't: deciding (`launchers.policies`), or choosing what a rescue does (`launchers.rescue`), by whole messages.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from launchers.outcome import Judgement, QuantumFailure
from planning.policies import Action, Decision

_SHOWN = 20

_VARYING = (
    (re.compile(r"(?:\b\w+://|(?<![\w.])\.{0,2}/)[^\s,;'\")]+|[\w.-]+(?:/[\w.-]+){2,}"), "…"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b0x[0-9a-fA-F]+"), "…"),
    (re.compile(r"(?:(?<!\w)[+-])?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"), "N"),
)


def describe(judgements: Iterable[Judgement]) -> list[str]:
    """Say what is done, a line for each cause with one quantum as its example, the most frequent first.

    Parameters
    ----------
    judgements
        What was decided.

    Returns
    -------
    lines
        Not many, whatever failed: of the causes that come after them, the last line says how many there are.
    """
    groups: defaultdict[tuple[str, str, str, Decision], list[QuantumFailure]] = defaultdict(list)
    for each in judgements:
        failure = each.failure
        groups[failure.task, failure.exception, alike(failure.message), each.decision].append(failure)
    causes = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines = [
        f"{len(failures)} {task}: {exception or 'no exception'}: {_message(message, failures)}: "
        f"{_said(decision.action, decision.memory_mb)} ({decision.policy}); such as {_example(failures[0])}"
        for (task, exception, message, decision), failures in causes[:_SHOWN]
    ]
    if more := [len(failures) for _, failures in causes[_SHOWN:]]:
        lines.append(f"{sum(more)} of {len(more)} more causes: see the table of failed quanta")
    return lines


def alike(message: str) -> str:
    """Give what messages have in common that differ by numbers and files: ``N`` for these, ``…`` for those.

    Parameters
    ----------
    message
        One line.
    """
    for varying, placeholder in _VARYING:
        message = varying.sub(placeholder, message)
    return message


def _message(in_common: str, failures: Iterable[QuantumFailure]) -> str:
    first, *others = {failure.message for failure in failures}
    return in_common if others else first


def _example(failure: QuantumFailure) -> str:
    data_id = ", ".join(f"{key}={value}" for key, value in failure.data_id.items())
    return f"{data_id}{place_of(failure)}, log {failure.log or 'none'}"


def place_of(failure: QuantumFailure) -> str:
    """Say where a quantum failed and with how much memory, as far as that is known, after a comma.

    Parameters
    ----------
    failure
        What failed.
    """
    node = f", on {failure.node}" if failure.node else ""
    memory = f", {failure.memory_mb:.0f} MB" if failure.memory_mb else ""
    return node + memory


def _said(action: Action, memory_mb: int | None) -> str:
    return {
        Action.RETRY: "tried again",
        Action.MORE_MEMORY: f"tried again with {memory_mb} MB",
        Action.QUARANTINE: "quarantined",
        Action.HOLD: "held for somebody to decide",
        Action.IGNORE: "listed",
    }[action]
