"""Jobs that Slurm doesn't take: when each is offered again, and when it is given up, so that every workflow ends.

Belongs here: `Refusals`, which counts. Doesn't: offering jobs to Slurm (`launchers.slurm.submissions`), or what follows
for others when one is given up (`launchers.slurm.plan`). Standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MOST = 6
"""How often a job is refused before it is given up; each pause is twice as long as the one before it."""

_OF_LIMITS = re.compile(r"(QOS|Assoc)\w*Submit", re.IGNORECASE)


def is_full(why: object) -> bool:
    """Tell whether Slurm refuses because there are already as many jobs as a user or an account may have."""
    return bool(_OF_LIMITS.search(str(why)))


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    times: int
    again_at: float


class Refusals:
    """What Slurm has refused of one workflow.

    Parameters
    ----------
    pause_s
        The first pause.
    clock
        Tells the time.
    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._known: dict[int, _Refusal] = {}
        self._full_until = float("-inf")

    @property
    def trouble(self) -> str:
        """What Slurm said of those that it doesn't take."""
        return "; ".join(dict.fromkeys(refusal.why for refusal in self._known.values()))

    def may_offer(self, position: int) -> bool:
        """Whether a job's pause is over, and that of all after Slurm was full."""
        again_at = self._known[position].again_at if position in self._known else self._full_until
        return self._clock() >= max(again_at, self._full_until)

    def note(self, positions: Iterable[int], why: str, *, others_go_on: bool) -> list[int]:
        """Take note of a refusal, and give those jobs that are not to be offered again.

        Parameters
        ----------
        positions
            Which jobs were refused.
        why
            Slurm's reason.
        others_go_on
            Whether other jobs of the user will be over some time, and no longer count against a limit.
        """
        given_up = []
        if is_full(why):
            self._full_until = self._clock() + self._pause_s
        for position in positions:
            times = self._known[position].times if position in self._known else 0
            times += not (others_go_on and is_full(why))
            self._known[position] = _Refusal(why, times, self._clock() + self._pause_s * 2 ** max(0, times - 1))
            if times >= MOST:
                given_up.append(position)
        self.forget(given_up)
        return given_up

    def forget(self, positions: Iterable[int]) -> None:
        """Take note that jobs are no longer refused, or nobody's business any more."""
        for position in positions:
            self._known.pop(position, None)
