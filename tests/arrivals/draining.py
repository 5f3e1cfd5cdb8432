"""Both ways of draining, for tests that hold for either: connecting anew each time, or keeping the connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from arrivals.drain import Drain, drain
from arrivals.ledger import Ledger
from resources.site import ArrivalSettings, KafkaSettings


class KeptDrains:
    """Drains that are kept until the end, one for each cluster and each settings but the group."""

    def __init__(self) -> None:
        self._kept: dict[str, Drain] = {}
        self._closing = ExitStack()

    def __call__(self, kafka: KafkaSettings, settings: ArrivalSettings, ledger: Ledger, *how: Any, **more: Any) -> Any:
        key = f"{kafka} {settings.model_copy(update={'group': ''})}"
        if key not in self._kept:
            self._kept[key] = self._closing.enter_context(Drain(kafka, settings))
        return self._kept[key].drain(ledger, *how, **more)

    def close(self) -> None:
        """Let go of all clusters."""
        self._closing.close()


WAYS = ("anew", "kept")


def draining(way: str) -> Iterator[Any]:
    """What drains as `arrivals.drain.drain` does, in one of the ways; the body of a fixture."""
    if way == "anew":
        yield drain
        return
    kept = KeptDrains()
    yield kept
    kept.close()
