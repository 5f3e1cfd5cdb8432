"""Benchmarks and soaks that are told to end do so in good order."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.ending import end_in_order

PROGRAMS = ("arrivals", "drain", "overhead", "slurm", "soak.arrivals", "soak.launchers")


@pytest.fixture
def own_signals(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_run_that_is_told_to_end_is_interrupted_where_it_is():
    end_in_order()

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("name", PROGRAMS)
def test_whatever_can_be_run_ends_in_order_from_its_first_line_on(name, monkeypatch):
    class Told(Exception):
        pass

    def tell() -> None:
        raise Told

    program = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(program, "end_in_order", tell)

    with pytest.raises(Told):
        program.main()


def test_a_service_that_fails_is_one_line_and_any_other_error_keeps_its_traceback():
    def said(error: str) -> list[str]:
        program = f"from benchmarks.ending import ServiceError, end_in_order; end_in_order(); raise {error}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr.splitlines()

    assert said("ServiceError('kafka: java is not installed')") == ["kafka: java is not installed"]
    assert said("ValueError('of our own making')")[0].startswith("Traceback")


@pytest.mark.usefixtures("own_signals")
def test_a_soak_of_too_few_messages_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("benchmarks.soak.arrivals").main(["--messages", "20"])

    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("make soak NAME=arrivals: error: 20 messages are too few")
    )
