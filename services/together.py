"""Starting and ending several services of the catalogue side by side, each in its turn.

Belongs here: who waits for whom. Doesn't: which services there are (`services.catalogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from services.catalogue import Entry, with_dependants, with_needs
from services.service import Service, ServiceError


def start(folder: Path, names: Iterable[str] = ()) -> Iterator[tuple[Entry, Future[Service]]]:
    """Start services and those that they need, each as soon as those are ready.

    Parameters
    ----------
    folder
        Of all services.
    names
        Which; all of the catalogue if none is named.

    Yields
    ------
    entry, outcome
        Each service when it has come up or failed.
    """
    chosen = with_needs(names)
    yield from _in_turn(chosen, {entry.name: entry.needs for entry in chosen}, lambda e: e.make(folder).start())


def stop(folder: Path, names: Iterable[str] = ()) -> Iterator[tuple[Entry, Future[bool]]]:
    """End services, after those that need them; their data stay.

    Parameters
    ----------
    folder, names
        As for `start`.

    Yields
    ------
    entry, outcome
        Each service when it has ended, and whether it ran.
    """
    chosen = with_dependants(names)
    dependants = {entry.name: [each.name for each in chosen if entry.name in each.needs] for entry in chosen}

    def end(entry: Entry) -> bool:
        service = entry.make(folder)
        ran = service.pid is not None
        service.stop()  # also where it doesn't run: some leave something behind
        return ran

    yield from _in_turn(chosen, dependants, end)


def _in_turn[Outcome](
    chosen: Sequence[Entry], before: Mapping[str, Sequence[str]], action: Callable[[Entry], Outcome]
) -> Iterator[tuple[Entry, Future[Outcome]]]:
    """Act on entries side by side, but on none before those that `before` names for it, which come earlier."""
    begun: dict[str, Future[Outcome]] = {}
    settled: SimpleQueue[Entry] = SimpleQueue()

    def act(entry: Entry) -> Outcome:
        try:
            for name in before[entry.name]:
                if begun[name].exception() is not None:
                    raise ServiceError(f"{entry.name} waits for {name}, which failed")
            return action(entry)
        finally:
            settled.put(entry)

    with ThreadPoolExecutor(max_workers=len(chosen)) as actors:
        for entry in chosen:
            begun[entry.name] = actors.submit(act, entry)
        for _ in chosen:
            entry = settled.get()
            yield entry, begun[entry.name]
