"""Starting and ending several services of the catalogue side by side, each in its turn.

Belongs here: who waits for whom. Doesn't: which services there are (`services.catalogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from services.catalogue import Entry, with_dependants, with_needs
from services.service import Service, ServiceError

type Settled = tuple[Entry, Future[Service]]


def start(folder: Path, names: Iterable[str] = ()) -> Iterator[Settled]:
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


def stop(folder: Path, names: Iterable[str] = ()) -> Iterator[Settled]:
    """End those services that run, after those that need them; their data stay.

    Parameters
    ----------
    folder, names
        As for `start`.

    Yields
    ------
    entry, outcome
        Each service that ran, when it has ended.
    """
    running = [entry for entry in with_dependants(names) if entry.make(folder).pid is not None]
    dependants = {entry.name: [each.name for each in running if entry.name in each.needs] for entry in running}

    def end(entry: Entry) -> Service:
        service = entry.make(folder)
        service.stop()
        return service

    yield from _in_turn(running, dependants, end)


def _in_turn(
    chosen: Sequence[Entry], before: Mapping[str, Sequence[str]], action: Callable[[Entry], Service]
) -> Iterator[Settled]:
    """Act on entries side by side, but on none before those that `before` names for it, which come earlier."""
    begun: dict[str, Future[Service]] = {}

    def act(entry: Entry) -> Service:
        for name in before[entry.name]:
            if begun[name].exception() is not None:
                raise ServiceError(f"{entry.name} waits for {name}, which failed")
        return action(entry)

    with ThreadPoolExecutor(max_workers=max(len(chosen), 1)) as actors:
        for entry in chosen:
            begun[entry.name] = actors.submit(act, entry)
        named = {begun[entry.name]: entry for entry in chosen}
        for future in as_completed(named):
            yield named[future], future
