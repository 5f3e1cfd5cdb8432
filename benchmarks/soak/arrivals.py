"""Arrivals that lose nothing, whatever is killed: ``make soak NAME=arrivals``.

Messages, one in a hundred of them broken and one in a hundred repeated, are published to Kafka over twelve partitions
in disorder. Meanwhile the drain, Dagster's code server, daemon and run workers, the broker and PostgreSQL are killed in
turn, and the network between broker and drain is cut; some of the time Kafka is away for longer than its clients wait.
In the end each message has one row with the state and the reason that it has to have, each good file's datasets are in
the Butler, and nothing is there twice: exit code 1 if not.

Belongs here: the command and the course of the whole. Doesn't: any part of it (the other modules of `benchmarks.soak`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from arrivals.ledger import Ledger
from benchmarks.ending import end_in_order
from benchmarks.report import RESULTS, Machine, Report, Result
from benchmarks.soak import evidence
from benchmarks.soak.broken import WAYS
from benchmarks.soak.chaos import ROUND, SHORT_PLAN, Chaos, Incident, never_at_work
from benchmarks.soak.files import SoakFiles
from benchmarks.soak.keeping import empty_folder
from benchmarks.soak.messages import Messages
from benchmarks.soak.oracle import MAX_EXAMPLES, Oracle, Verdict
from benchmarks.soak.population import FILES_AN_EXPOSURE, Population
from benchmarks.soak.publisher import Publisher
from benchmarks.soak.site import PARTITIONS, TOPIC, SoakSite
from benchmarks.soak.telling import incident_table, results, verdict_table
from benchmarks.soak.victims import Stuck, runs_by_status, victims
from resources.butler import open_butler

NAME = "soak-arrivals"
MESSAGES = 1_000_000
ROUNDS = 2
PATIENCE_S = 900.0
SAMPLED_FILES = 200
_PROGRESS_EVERY = 500

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Soak:
    """What was done and found.

    Parameters
    ----------
    incidents
        What was broken.
    verdicts
        What was promised.
    runs
        Dagster's runs that ingested, by how they ended.
    writing_s, running_s
        How long files took, and everything from the first message to the last settled row.
    """

    incidents: Sequence[Incident]
    verdicts: Sequence[Verdict]
    runs: Mapping[str, int]
    writing_s: float
    running_s: float


def soak(folder: Path, population: Population, rounds: int, patience_s: float, say: Say) -> Soak:
    """Do all of it.

    Parameters
    ----------
    folder
        For everything that is made; it is empty.
    population
        Of messages.
    rounds
        How often everything is broken in every shift; 0: once each, in the shift where it matters.
    patience_s
        How long anything may take that has to happen by itself.
    say
        Told what happens.
    """
    began = time.monotonic()
    files = SoakFiles(population, folder / "delivered")
    files.folder.mkdir()
    files.write(lambda done, of: say(f"files of {done}/{of} exposures") if done % _PROGRESS_EVERY == 0 else None)
    writing_s = time.monotonic() - began
    say(f"{population.good_files:,} files of {population.exposures:,} exposures in {writing_s:.0f} s")
    site = SoakSite(folder / "site", files.rucio)
    site.folder.mkdir(exist_ok=True)
    with site.running(population) as profile, closing(Ledger(profile.ledger)) as ledger, site.instance() as instance:
        messages = Messages(files, site.announcement, PARTITIONS)
        publisher = Publisher(site.kafka.client(), TOPIC, messages)
        chaos = Chaos(site, ledger, publisher, seed=population.seed, patience_s=patience_s, report=say)
        plan = ROUND * rounds if rounds else SHORT_PLAN
        began = time.monotonic()
        stuck: list[str] = []
        try:
            chaos.run(plan, victims(site, instance, patience_s), len(messages))
        except Stuck as error:
            stuck.append(str(error))
            say(f"stuck: {error}")
        running_s = time.monotonic() - began
        say(f"looking at what there is after {running_s:.0f} s")
        site.ingestd.stop()
        site.daemon.stop()
        oracle = Oracle(messages)
        butler = open_butler(profile.butler)
        verdicts = [
            oracle.judge_count("each message lies in Kafka once", "ends of partitions", *_in_kafka(publisher)),
            oracle.judge_count("each lies where it was put", "offsets that the broker told", *_told(publisher)),
            *evidence.judge(oracle, population, ledger, butler, site.registry),
            evidence.judge_files(butler, population, SAMPLED_FILES),
            _seen("everything goes on by itself", f"{len(chaos.incidents)} of {len(plan)} incidents", stuck),
            _seen("nothing ends but what is struck", f"processes in {len(chaos.incidents)} incidents", chaos.unplanned),
            _seen("each victim was struck at work", _at_work(chaos.incidents), never_at_work(chaos.incidents)),
        ]
        runs = runs_by_status(instance)
    return Soak(chaos.incidents, verdicts, runs, writing_s, running_s)


def report_of(done: Soak, population: Population, machine: Machine, patience_s: float) -> Report:
    """Give what was found as every benchmark reports it."""
    figures = [
        Result("messages", population.messages, ""),
        Result("events that announce no file", population.events, ""),
        Result(f"broken messages, in {population.ways} ways", population.broken, ""),
        Result("repeated messages", population.duplicated, ""),
        Result("exposures", population.exposures, ""),
        Result("exposures whose dimensions come last", population.late_exposures(), ""),
        Result("raws, half of them in zips", population.raws, ""),
        Result(f"products, of {population.product_types} dataset types", population.products, ""),
        *(Result(f"Dagster's runs that ingested: {status}", runs, "") for status, runs in sorted(done.runs.items())),
        Result("incidents", len(done.incidents), ""),
        Result("writing files", round(done.writing_s, 1), "s"),
        Result("from the first message to the last settled row", round(done.running_s, 1), "s"),
        Result("messages settled, all incidents included", round(population.messages / done.running_s, 1), "1/s"),
        *results(done.verdicts, done.incidents, patience_s),
    ]
    return Report(NAME, machine, tuple(figures))


def _seen(promise: str, checked: str, violations: Sequence[str]) -> Verdict:
    return Verdict(promise, checked, len(violations), tuple(violations[:MAX_EXAMPLES]))


def _in_kafka(publisher: Publisher) -> tuple[int, int]:
    return publisher.lies_there(PARTITIONS), len(publisher)


def _told(publisher: Publisher) -> tuple[int, int]:
    return publisher.placed, len(publisher)


def _at_work(incidents: Sequence[Incident]) -> str:
    return f"{sum(one.at_work for one in incidents)} of {len(incidents)} incidents, with messages to read or to ingest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, print what was found and write it as figures and text, and say whether all promises were kept."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="make soak NAME=arrivals", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="0: break everything once, as in `make test`")
    parser.add_argument("--files-an-exposure", type=int, default=FILES_AN_EXPOSURE)
    parser.add_argument("--seed", type=int, default=20261101)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that anything may take")
    parser.add_argument("--folder", type=Path, help="keep everything here, in place of what an earlier soak has left")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args(arguments)
    console = Console(width=200, record=True)
    began = time.monotonic()
    machine = Machine.here()
    try:
        population = Population(options.messages, len(WAYS), options.seed, options.files_an_exposure)
    except ValueError as error:
        parser.error(str(error))
    with empty_folder(options.folder) as folder:
        done = soak(
            folder,
            population,
            options.rounds,
            options.patience,
            lambda line: console.print(f"{time.monotonic() - began:7.1f} s  {line}", markup=False, highlight=False),
        )
    report = report_of(done, population, machine, options.patience)
    console.print(incident_table(done.incidents), "", verdict_table(done.verdicts), "")
    path = report.write(options.results)
    broken = [verdict.promise for verdict in done.verdicts if not verdict.kept]
    console.print(f"{path}: {len(broken)} of {len(done.verdicts)} promises broken", *broken, sep="\n  ")
    console.save_text(str(path.with_suffix(".txt")))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
