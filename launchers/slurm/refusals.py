"""Jobs that Slurm doesn't take: when each is offered again, and when it is given up, so that every workflow ends.

Belongs here: `Refusals`, which counts. Doesn't: offering jobs to Slurm (`launchers.slurm.submissions`), or what follows
for others when one is given up (`launchers.slurm.jobs`). Standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MOST = 6
"""How often a job is refused before it is given up; each pause is twice as long as the one before it."""

_OF_LIMITS = re.compile(r"submit limit|(QOS|Assoc)\w*Submit", re.IGNORECASE)


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

    @property
    def trouble(self) -> str:
        """What Slurm said of those that it doesn't take."""
        return "; ".join(dict.fromkeys(refusal.why for refusal in self._known.values()))

    def may_offer(self, position: int) -> bool:
        """Whether a job's pause is over."""
        return position not in self._known or self._clock() >= self._known[position].again_at

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
        for position in positions:
            times = self._known[position].times if position in self._known else 0
            times += not (others_go_on and _OF_LIMITS.search(why))
            self._known[position] = _Refusal(why, times, self._clock() + self._pause_s * 2 ** max(0, times - 1))
            if times >= MOST:
                given_up.append(position)
        self.forget(given_up)
        return given_up

    def forget(self, positions: Iterable[int]) -> None:
        """Take note that jobs are no longer refused, or nobody's business any more."""
        for position in positions:
            self._known.pop(position, None)
