"""A service that never becomes ready, for what is said of those."""

from collections.abc import Sequence
from typing import ClassVar

from services.service import Service


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
