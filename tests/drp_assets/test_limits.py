"""Limits by site, release and step, as Dagster's own queue keeps them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from typer.testing import CliRunner

from commands.main import app
from drp_assets.limits import concurrency, pool_limits, pool_of, set_pool_limits
from launchers.run_coordinator import LabelledRunCoordinator
from planning.pipeline import PipelinePlan, Step
from planning.release import read_release
from resources.errors import OperatorError, Rejected
from resources.site import RunLimits
from sensors.arrivals import INGEST_TAG

TOP = Path(__file__).parents[2]
DEMO = read_release(TOP / "releases" / "demo.yaml")
STEPS = [Step(label=f"{name}-x", dimensions=("exposure",)) for name in ("step1a", "step1b")]
LIMITS = RunLimits(site=4, release=3, step=2, steps={"step1b": 1})


@dg.op(pool=pool_of(DEMO, STEPS[0]))
def one() -> None: ...


@dg.op(pool=pool_of(DEMO, STEPS[1]))
def other() -> None: ...


@dg.op
def free() -> None: ...


JOBS = {op.name: dg.GraphDefinition(name=f"{op.name}_job", node_defs=[op]).to_job() for op in (one, other, free)}


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    content = yaml.safe_load((TOP / "dagster.yaml").read_text())
    content["concurrency"] = concurrency(LIMITS, content["concurrency"])
    kept = {key: content[key] for key in ("concurrency", "run_coordinator", "telemetry")}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(kept))
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        set_pool_limits(made, pool_limits(LIMITS, DEMO, STEPS))
        yield made


def origin(op: str, location: str) -> RemoteJobOrigin:
    """Where a run comes from that the web UI or the daemon has asked for."""
    code = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file=__file__), location_name=location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(code, "__repository__"), f"{op}_job")


def chosen(instance: dg.DagsterInstance, *asked: tuple[str, ...]) -> list[str]:
    """Which of the runs asked for, by op, release and maybe what they ingest, Dagster's queue lets go."""
    names = {}
    for op, release, *ingested in asked:
        run = instance.create_run_for_job(
            JOBS[op],
            status=dg.DagsterRunStatus.QUEUED,
            tags={"drp/release": release, **dict(zip([INGEST_TAG], ingested, strict=False))},
            remote_job_origin=origin(op, release),
        )
        names[run.run_id] = " ".join((op, release, *ingested))
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    daemon._logger = logging.getLogger("queue")
    runs = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)
    return [names[run.run_id] for run in runs]


def test_a_step_is_limited_by_its_pool(instance):
    assert chosen(instance, *[("one", "a"), ("one", "b"), ("one", "c"), ("other", "d"), ("other", "e")]) == [
        "one a",
        "one b",
        "other d",
    ]


def test_a_release_is_limited_whatever_its_steps(instance):
    assert chosen(instance, *[("free", "a")] * 4, ("free", "b")) == ["free a"] * 3 + ["free b"]


def test_the_site_is_limited_whatever_the_releases(instance):
    assert len(chosen(instance, *[("free", release) for release in "abcdef"])) == 4


def test_runs_that_ingest_take_turns_and_hold_up_no_others(instance):
    asked = [("free", "site", "20261101"), ("free", "site", "20261102"), ("free", "site", "products"), ("free", "dr1")]

    assert chosen(instance, *asked) == ["free site 20261101", "free dr1"]


def test_every_run_says_its_release_whoever_asks_for_it(instance):
    run = instance.create_run_for_job(JOBS["free"], remote_job_origin=origin("free", "dr1"))
    assert isinstance(instance.run_coordinator, LabelledRunCoordinator)

    queued = instance.run_coordinator.submit_run(SubmitRunContext(run, Mock()))

    assert queued.tags["drp/release"] == "dr1"
    assert queued.status is dg.DagsterRunStatus.QUEUED


def test_the_command_prints_the_sites_own_instance(monkeypatch, tmp_path):
    for name in ("DRP_STATE", "DRP_REPORTS_URL"):
        monkeypatch.setenv(name, str(tmp_path))
    profile = (TOP / "deploy" / "sites" / "laptop.yaml").read_text() + "\nlimits: {site: 7, release: 6, step: 5}\n"
    (tmp_path / "site.yaml").write_text(profile)
    monkeypatch.setenv("DRP_SITE", str(tmp_path / "site.yaml"))

    printed = CliRunner().invoke(app, ["limits", "--instance", str(TOP / "dagster.yaml")], catch_exceptions=False)

    settings = yaml.safe_load(printed.stdout)
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] == 7
    assert settings["concurrency"]["pools"] == {"granularity": "run", "default_limit": 5}
    by_key = {each["key"]: each["limit"] for each in settings["concurrency"]["runs"]["tag_concurrency_limits"]}
    assert by_key == {"drp/release": 6, "dagster/backfill": 10, "drp/ingest": 1}
    assert settings["storage"] == yaml.safe_load((TOP / "dagster.yaml").read_text())["storage"]


def test_the_command_shows_and_sets_the_limits_of_a_releases_steps(monkeypatch, tmp_path, instance):
    for name in ("DRP_STATE", "DRP_REPORTS_URL"):
        monkeypatch.setenv(name, str(tmp_path / "state"))
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    shown = CliRunner().invoke(app, ["limits", "demo"], catch_exceptions=False)
    assert "demo/step1a" in shown.stdout
    assert "nothing written" in shown.stdout
    assert CliRunner().invoke(app, ["limits", "demo", "--really"], catch_exceptions=False).exit_code == 0

    pools = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert pools["demo/step3a"] == RunLimits().step


@pytest.mark.parametrize("said", [None, {}, {"runs": None}, {"runs": {"tag_concurrency_limits": None}}])
def test_what_a_template_leaves_empty_is_as_good_as_not_there(said):
    assert concurrency(LIMITS, said)["runs"]["max_concurrent_runs"] == 4


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([], "dagster.yaml: concurrency: is no mapping: []; correct it"),
        ({"runs": 3}, "dagster.yaml: concurrency.runs: is no mapping: 3; correct it"),
        ({"runs": {"tag_concurrency_limits": "x"}}, "concurrency.runs.tag_concurrency_limits: is no list: 'x'"),
        ({"runs": {"tag_concurrency_limits": [7]}}, "concurrency.runs.tag_concurrency_limits: is no mapping: 7"),
        ({"runs": {"tag_concurrency_limits": [{"limit": 7}]}}, "tag_concurrency_limits: a limit has no key; say which"),
    ],
)
def test_a_template_that_dagster_would_not_understand_is_refused_with_its_key(said, complaint):
    with pytest.raises(Rejected) as refused:
        concurrency(LIMITS, said)

    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (None, "dagster.yaml: cannot be read: No such file or directory"),
        ("storage: {", "dagster.yaml line 1: is not YAML"),
        ("- storage", "dagster.yaml: holds no keys"),
        (
            "run_monitorin: {enabled: true}",
            'dagster.yaml: Received unexpected config entry "run_monitorin" at the root',
        ),
        ("storage: {postgres: {postgres_url: {env: DRP_NOT_SET}}}", 'environment variable "DRP_NOT_SET" which is not'),
        (
            "storage: {postgres: {postgres_url: 'postgresql+psycopg2://127.0.0.1:1/x'}}",
            'Dagster\'s database: (psycopg2.OperationalError) connection to server at "127.0.0.1", port 1 failed',
        ),
    ],
)
def test_a_dagster_that_cannot_be_opened_is_one_line(monkeypatch, tmp_path, settings, complaint):
    for name in ("DRP_STATE", "DRP_REPORTS_URL"):
        monkeypatch.setenv(name, str(tmp_path / "state"))
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _: None)
    monkeypatch.setattr("commands.limits.plan_of", lambda *_: PipelinePlan(pipeline="p", instrument=None, steps=()))
    if settings is not None:
        (tmp_path / "dagster.yaml").write_text(settings)

    with pytest.raises(OperatorError) as refused:
        CliRunner().invoke(app, ["limits", "demo", "--really"], catch_exceptions=False)

    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
