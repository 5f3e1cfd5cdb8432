"""A thousand failures, told in lines that a person reads."""

from __future__ import annotations

import dataclasses

import pytest

from launchers.causes import alike, describe
from launchers.outcome import Judgement, QuantumFailure
from planning.policies import Action, Decision


def failure(detector: int = 1, exception: str = "ValueError", message: str = "too bad") -> QuantumFailure:
    return QuantumFailure("isr", {"exposure": 7, "detector": detector}, exception, message, "s3://log")


def judged(action: Action, memory_mb: int | None = None, **failed) -> Judgement:
    return Judgement(failure(**failed), Decision(action, "p", memory_mb))


def test_decisions_are_told_by_cause() -> None:
    made = [judged(Action.RETRY), judged(Action.RETRY, detector=2), judged(Action.MORE_MEMORY, 99, exception="E")]
    assert describe(made) == [
        "2 isr: ValueError: too bad: tried again (p); such as exposure=7, detector=1, log s3://log",
        "1 isr: E: too bad: tried again with 99 MB (p); such as exposure=7, detector=1, log s3://log",
    ]


def test_a_causes_example_says_on_which_node_and_with_how_much_memory() -> None:
    failed = dataclasses.replace(failure(), node="n1", memory_mb=2047.6)
    (line,) = describe([Judgement(failed, Decision(Action.RETRY, "p"))])
    assert line.endswith("such as exposure=7, detector=1, on n1, 2048 MB, log s3://log")


def test_messages_that_differ_by_numbers_and_files_are_one_cause() -> None:
    messages = [f"only {number} of {number * 7.5} stars in /sps/lsst/{number}.fits" for number in range(3000)]
    made = [judged(Action.IGNORE, detector=number, message=message) for number, message in enumerate(messages)]
    assert describe(made) == [
        "3000 isr: ValueError: only N of N stars in …: listed (p); such as exposure=7, detector=0, log s3://log"
    ]


def test_of_very_many_causes_the_rarest_are_only_counted() -> None:
    made = [judged(Action.IGNORE, exception=f"E{number}") for number in range(25) for _ in range(25 - number)]
    *lines, last = describe(made)
    assert [line.split()[0] for line in lines] == [str(number) for number in range(25, 5, -1)]
    assert last == "15 of 5 more causes: see the table of failed quanta"


@pytest.mark.parametrize(
    ("message", "in_common"),
    [
        ("S/N -3.5e-7 at x=12", "S/N N at x=N"),
        ("davs://xgate.hec:1094/repo/a.fits: 404", "… N"),
        ("no u/g/20261101/calib.ecsv, or ./none", "no …, or …"),
        ("dataset 01234567-89ab-cdef-0123-456789abcdef at 0x7fAb", "dataset … at …"),
        ("on 2026-11-01 for LSSTCam/N/A", "on N-N-N for …"),
        ("", ""),
    ],
)
def test_what_varies_is_left_out(message: str, in_common: str) -> None:
    assert alike(message) == in_common
