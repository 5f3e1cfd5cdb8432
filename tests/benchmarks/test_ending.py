"""Benchmarks and soaks that are told to end do so in good order."""

import importlib
import signal
from collections.abc import Iterator

import pytest

from benchmarks.ending import end_in_order

PROGRAMS = ("arrivals", "drain", "overhead", "slurm", "soak.arrivals", "soak.launchers")


@pytest.fixture
def own_signals() -> Iterator[None]:
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
