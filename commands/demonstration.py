"""The demonstration: a simulated survey and everything that processes it, under one folder, on this machine alone.

Belongs here: preparing, starting, feeding, watching and ending it. Doesn't: the command's options (`commands.demo`), or
showing progress (`commands.progress`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import StepFailureData

from commands.backfill import launch_backfill
from commands.progress import ReleaseProgress, Standing, read_progress
from commands.site import prepare_site
from drp_assets.definitions import RELEASES
from drp_assets.keys import scorecard_key
from drp_assets.partitions import tract_partitions
from drp_assets.plans import plan_of
from launchers import warm
from planning.release import read_release
from resources.errors import Rejected, SiteFault
from resources.kafka import LastError, make_producer
from resources.site import PROFILE_VARIABLE, read_site
from services.dagster_platform import DagsterPlatform, ReportServer, make_laptop_instance
from services.embedded_kafka import EmbeddedKafka
from services.slurm import ClusterShape, Slurm
from simulator.delivery import Delivery, simulate
from simulator.messages import Announcement
from simulator.survey import Survey

TOP = Path(__file__).parent.parent
SITES = ("laptop", "slurm")
"""Profiles under ``deploy/sites`` that need this machine alone."""

_MARK = "demonstration.txt"
"""The file that says of a folder that a demonstration made what is in it."""

_SURVEY = "survey"
_ALWAYS_THERE = {_SURVEY, "services"}
"""What is in every demonstration's folder, also from before there was a mark."""

_IDLE_LIMIT_S = 90.0
"""With nothing running for this long, what isn't complete will not become so by itself."""

_POLL_S = 3.0
_FLUSH_S = 60.0

Report = Callable[[str], None]


class Demonstration:
    """A release of a simulated survey, from messages to scorecard.

    Parameters
    ----------
    state
        Folder of everything that it makes: a new one, or an earlier demonstration's.
    survey
        What is simulated; the release of the same name processes it.
    site
        One of `SITES`.

    Raises
    ------
    resources.errors.Rejected
        The folder holds something else, which would be lost with the demonstration.
    """

    def __init__(self, state: Path, survey: Survey, site: str = "laptop") -> None:
        self.state = _claimed(state.resolve())
        self.survey = survey
        # Somewhat more jobs than cores, as one of them only looks after the others.
        shape = ClusterShape(cpus=1 + (os.cpu_count() or 1), memory_mb=8000)
        self.slurm = Slurm(self.state / "slurm", shape) if site == "slurm" else None
        self.reports = ReportServer(self.state / "services" / "reports", {}, self.state / "reports")
        self.variables = {
            "DRP_STATE": str(self.state),
            "DRP_REPORTS_URL": self.reports.address,
            PROFILE_VARIABLE: str(TOP / "deploy" / "sites" / f"{site}.yaml"),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **(self.slurm.variables if self.slurm else {}),
        }
        os.environ.update(self.variables)
        self.site = read_site()
        self.release = read_release(RELEASES / f"{survey.name}.yaml")
        self.home = self.state / "dagster"
        topics = {f"LAPTOP-{scope}": 1 for scope in ("raw", "calib", "refcat", "truth")}
        self.kafka = EmbeddedKafka(self.state / "kafka", topics)
        locations = ["site", self.release.name]
        self.platform = DagsterPlatform(self.state / "services", self.home, locations, self.variables)

    @property
    def ui(self) -> str:
        """Address of the web UI."""
        return self.platform.web_ui.address

    def forget(self) -> None:
        """Stop what runs and remove all state, the simulated survey excepted."""
        self.stop()
        for path in self.state.iterdir():
            if path.name not in {_SURVEY, _MARK}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self, report: Report) -> Delivery:
        """Prepare the site, simulate the survey and start every service; what is there already stays.

        Parameters
        ----------
        report
            Is told what is being done.

        Returns
        -------
        delivery
            The survey, ready to be announced.
        """
        processes = os.cpu_count() or 1
        with ThreadPoolExecutor() as starters:
            # The imports that every run shares are paid for while the survey is made.
            started: list[Future[Any]] = [starters.submit(warm.start, self.state)]
            started += [starters.submit(service.start) for service in (self.kafka, self.reports, *self._cluster)]
            started.append(starters.submit(self._prepare_and_start_dagster))
            delivery = simulate(
                self.survey,
                self.state / _SURVEY,
                processes,
                lambda what, done, of: report(f"simulating the survey: {what} {done}/{of}"),
            )
            report("starting services")
            for future in started:
                future.result()
        return delivery

    def _prepare_and_start_dagster(self) -> None:
        prepare_site(self.site, self.survey.skymap)
        plan_of(self.release, self.site.state / "plans")
        make_laptop_instance(TOP / "dagster.yaml", self.home)
        with self.instance():
            pass  # its tables are made here, before several processes open it at once
        self.platform.start()

    def publish(self, delivery: Delivery) -> int:
        """Announce the survey's files in Kafka, unless this very cluster has been told already.

        Parameters
        ----------
        delivery
            The survey.

        Returns
        -------
        published
            How many messages were written now.
        """
        done = self.state / "published.json"
        cluster = self.kafka.address
        if done.is_file() and json.loads(done.read_text()) == [cluster, self.kafka.pid]:
            return 0
        errors = LastError()
        producer = make_producer(self.site.kafka, errors)
        count = 0
        for message in delivery.messages(Announcement()):
            producer.produce(message.topic, value=message.value, key=message.key)
            count += 1
        if producer.flush(_FLUSH_S):
            raise SiteFault("messages could not be written", f"Kafka at {cluster}", f"see {self.kafka.log}")
        done.write_text(json.dumps([cluster, self.kafka.pid]))
        return count

    def watch(
        self, delivery: Delivery, show: Callable[[ReleaseProgress], None], *, judged_since: float = 0.0
    ) -> Standing:
        """Wait until the release is complete, or can't become so; services that die meanwhile are started again.

        Parameters
        ----------
        delivery
            The survey, should Kafka have to be told of it again.
        show
            Is given the progress every few seconds.
        judged_since
            Its scorecard has to be newer than this (seconds since the epoch).
        """
        plan = plan_of(self.release, self.site.state / "plans")
        idle_since = time.monotonic()
        with self.instance() as instance:
            while True:
                self.revive(delivery)
                progress = read_progress(instance, self.site.ledger, self.release, plan)
                show(progress)
                if progress.complete and self._judged_at(instance) > judged_since:
                    return Standing.COMPLETE
                if progress.running:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > _IDLE_LIMIT_S:
                    return Standing.STUCK
                time.sleep(_POLL_S)

    def revive(self, delivery: Delivery) -> None:
        """Start again what should run and doesn't.

        Parameters
        ----------
        delivery
            Announced again to a Kafka that has lost it.
        """
        for service in (self.kafka, self.reports, *self._cluster, *self.platform.services):
            if service.pid is None:
                service.start()
        self.publish(delivery)

    def reprocess(self, config: list[str]) -> tuple[str, float]:
        """Run the coaddition of every tract again with another configuration, into new runs on top of the chain.

        What depends on it follows by itself, down to the scorecard.

        Parameters
        ----------
        config
            Overrides, each ``task:field=value``.

        Returns
        -------
        backfill
            Its identifier in the UI.
        started_at
            Seconds since the epoch.
        """
        started_at = time.time()
        step = plan_of(self.release, self.site.state / "plans").step("step3a")
        with self.instance() as instance:
            tracts = sorted(instance.get_dynamic_partitions(str(tract_partitions(self.release).name)))
        return launch_backfill(self.ui, self.release, step, tracts, config), started_at

    def _judged_at(self, instance: dg.DagsterInstance) -> float:
        event = instance.get_latest_materialization_event(scorecard_key(self.release))
        return event.timestamp if event else 0.0

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the demonstration's Dagster instance."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def failures(self) -> Mapping[str, str]:
        """Give what failed and has not been made good: asset and first line of the cause."""
        with self.instance() as instance:
            found = {}
            for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
                run = record.dagster_run
                events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
                data = events[0].dagster_event.step_failure_data if events and events[0].dagster_event else None
                assets = sorted(key.to_user_string() for key in run.asset_selection or ())
                found[assets[0] if assets else run.run_id] = _cause(data)
            return found

    def stop(self) -> None:
        """Stop every service; batch jobs that run go on, and are found again, but a cluster ends with its jobs."""
        self.platform.stop()
        # Only now: a run that was begun meanwhile would have started another.
        warm.stop(self.state)
        self.reports.stop()
        self.kafka.stop()
        for cluster in self._cluster:
            cluster.stop()

    @property
    def _cluster(self) -> tuple[Slurm, ...]:
        return (self.slurm,) if self.slurm else ()


def _claimed(folder: Path) -> Path:
    """Mark a folder as a demonstration's, which may remove all of it but a survey; only that may be there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
        if there - {_SURVEY} and _MARK not in there and not there >= _ALWAYS_THERE:
            raise Rejected("holds what no demonstration made", str(folder), "name another folder with --state")
        (folder / _MARK).write_text("What is beside this file is a demonstration's; `drp demo --fresh` removes it.\n")
    except OSError as error:
        what = f"cannot hold a demonstration: {error.strerror}"
        raise Rejected(what, str(folder), "name another folder with --state") from error
    return folder


def _cause(data: StepFailureData | None) -> str:
    """Give the first line of the innermost cause of a step's failure."""
    if data is None:
        return "its process ended"
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error and error.cause:
        error = error.cause
    return error.message.strip().splitlines()[0] if error else "no cause is known"
