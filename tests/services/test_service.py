"""A service that can't be started says so, with the end of its log."""

from collections.abc import Sequence
from typing import ClassVar

import pytest

from services.service import Service, ServiceError


class Stubborn(Service):
    """Runs a shell's command line, and never becomes ready."""

    name: ClassVar[str] = "stubborn"
    start_timeout_s: ClassVar[float] = 0.5
    script = "sleep 60"

    def command(self) -> Sequence[str]:
        return ["sh", "-c", self.script]

    def is_ready(self) -> bool:
        return False

    @property
    def address(self) -> str:
        return "nowhere"


@pytest.fixture
def stubborn(tmp_path):
    service = Stubborn(tmp_path)
    yield service
    service.stop()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(stubborn):
    stubborn.script = "echo no port is free; exit 3"
    stubborn.start_timeout_s = 30.0

    with pytest.raises(ServiceError, match=r"stubborn ended while starting; .*/log ends with:\nno port is free"):
        stubborn.start()


def test_a_server_that_is_not_ready_in_time_is_an_error(stubborn):
    with pytest.raises(ServiceError, match=r"stubborn is not ready after 0\.5 s"):
        stubborn.start()


def test_a_server_that_ignores_the_gentle_signal_is_killed(stubborn):
    stubborn.script = "trap '' TERM; while :; do sleep 0.1; done"
    stubborn.stop_timeout_s = 0.3
    with pytest.raises(ServiceError):
        stubborn.start()
    assert stubborn.pid is not None

    stubborn.stop()

    assert stubborn.pid is None
