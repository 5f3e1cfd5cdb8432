"""`drp rescue` and `drp quarantine`, and the job behind the UI's button, on a release of toys."""

import csv
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import create_autospec

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from lsst.daf.butler import Butler, CollectionType
from typer.testing import CliRunner

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository  # noqa: E402

from commands import backfill, rescue  # noqa: E402
from commands.main import app  # noqa: E402
from drp_assets.definitions import build_release_definitions  # noqa: E402
from drp_assets.reporting import read_failures  # noqa: E402
from launchers import warm  # noqa: E402
from launchers.attempts import attempts_of  # noqa: E402
from launchers.casebook import Case, Casebook  # noqa: E402
from launchers.outcome import QuantumFailure  # noqa: E402
from planning.release import read_release  # noqa: E402
from resources.errors import Rejected  # noqa: E402
from resources.site import Site, read_site  # noqa: E402

LAPTOP = Path(__file__).parents[2] / "deploy" / "sites" / "laptop.yaml"
RELEASE = {
    "name": "toy",
    "description": "Numbers",
    "owner": "team:drp",
    "pipeline": str(TOY / "toy_pipeline.yaml"),
    "instrument": "ToyCam",
    "skymap": "none",
    "bands": ["g", "r"],
    "raw_collection": "numbers",
    "input_collections": ["numbers"],
    "expected_detectors": [0, 1],
    "inputs": {"first_day_obs": 20261101, "last_day_obs": 20261102},
    "validation": {"least_product_fraction": 0.5},
}
EVIL = {"config": ["double:behaviour={'2026110100001-1': 'raise', '2026110100002-0': 'raise otherwise'}"]}


class World:
    """A site with one release, whose runs are in this process."""

    def __init__(self, site: Site, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.site, self.definitions, self.instance = site, definitions, instance

    def run(self, *days: str, **settings) -> dg.ExecuteInProcessResult:
        """Run the step as settings say, over one day or a range of them."""
        return self._run(days or ("20261101",), {"ops": {"toy__step1": {"config": settings}}})

    def push_the_button(self, day: str = "20261101") -> dg.ExecuteInProcessResult:
        """Launch the rescue's job as it is."""
        return self._run((day,), None)

    def _run(self, days: tuple[str, ...], config: dict | None) -> dg.ExecuteInProcessResult:
        job = self.definitions.get_repository_def().get_job("rescue_step1")
        first, last = days[0], days[-1]
        many = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last} if first != last else None
        return job.execute_in_process(
            instance=self.instance,
            partition_key=None if many else first,
            tags=many,
            run_config=config,
            raise_on_error=False,
        )

    def recorded(self, day: str) -> list[int]:
        """How many datasets each materialisation of a day's first product tells of, the latest first."""
        filters = dg.AssetRecordsFilter(dg.AssetKey(["toy", "toy_doubled"]), asset_partitions=[day])
        records = self.instance.fetch_materializations(filters, limit=100).records
        return [record.asset_materialization.metadata["datasets"].value for record in records]

    def failed(self) -> list[str]:
        """What the report would list."""
        return [failure.data_id for failure in read_failures(self.site, read_release(backfill.RELEASES / "toy.yaml"))]

    def counts(self) -> dict[str, int]:
        """What the newest materialisations say there is, by product."""
        found = {}
        for name in ("toy_doubled", "toy_squared", "toy_total"):
            event = self.instance.get_latest_materialization_event(dg.AssetKey(["toy", name]))
            if event is not None:
                found[name] = event.asset_materialization.metadata["datasets"].value
        return found


@pytest.fixture
def world(monkeypatch, tmp_path) -> Iterator[World]:
    for name, value in {
        "DRP_STATE": tmp_path,
        "DRP_REPORTS_URL": "http://127.0.0.1:1",
        "DRP_SITE": LAPTOP,
        "PYTHONPATH": TOY,
        warm.STATE_VARIABLE: tmp_path / "warm",
        "XDG_STATE_HOME": tmp_path / "home",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(backfill, "RELEASES", tmp_path / "releases")
    file = tmp_path / "releases" / "toy.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(RELEASE))
    make_repository(tmp_path / "repo")
    with Butler.from_config(str(tmp_path / "repo"), writeable=True) as butler:
        butler.collections.register("toy", CollectionType.CHAINED)
        butler.collections.redefine_chain("toy", ["numbers"])
    site = read_site()
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(site, build_release_definitions(site, read_release(file)), instance)
    warm.stop(tmp_path / "warm")


def _failed_quanta(site: Site) -> Path:
    (table,) = (site.reports / "toy" / "failed-quanta").glob("*.csv")
    return table


def said(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, list(arguments), catch_exceptions=False)
    return " ".join(result.output.split())


@pytest.mark.integration
def test_the_command_tells_what_failed_by_cause_and_the_button_does_it_again(world, monkeypatch):
    assert world.run(**EVIL).success
    assert world.counts() == {"toy_doubled": 2, "toy_squared": 2}

    told = said("rescue", "toy", "step1")
    assert "(20261101): 2 failed, 4 quanta wait for what failed" in told
    assert "double: toy_tasks.EvilData: this exposure is evil" in told
    assert "1 rescue would be started: repeat with --really" in told
    with pytest.raises(Rejected, match=r"toy step1: nothing was submitted for 20261102; submitted were: 20261101"):
        said("rescue", "toy", "step1", "20261102")
    assert "nothing is left to rescue for that cause" in said("rescue", "toy", "step1", "--cause", "MemoryError")
    shown = said("rescue", "toy", "step1", "--show")
    for there in ("ignore", platform.node(), "memory (MB)", "file://"):
        assert there in shown
    with _failed_quanta(world.site).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["node"] for row in rows] == [platform.node()] * 2
    assert all(int(row["memory_mb"]) > 50 for row in rows)

    launch = create_autospec(backfill.launch_backfill, return_value="abcd")
    monkeypatch.setattr(rescue, "launch_backfill", launch)
    told = said("rescue", "toy", "step1", "--cause", "EvilData", "--memory", "double=4096", "--really")
    assert "attempt 2 asked for: abcd" in told
    _, release, step, partitions, config = launch.call_args.args
    assert (release.name, step.label, partitions, config) == ("toy", "step1", ["20261101"], [])
    settings = launch.call_args.kwargs["settings"]
    assert settings == {"rescue": True, "causes": ["EvilData"], "memory_mb": {"double": 4096}}

    assert world.run(**settings).success
    assert world.counts() == {"toy_doubled": 3, "toy_squared": 3, "toy_total": 1}
    assert "1 failed, 2 quanta wait" in said("rescue", "toy", "step1")

    assert world.push_the_button().success
    assert world.counts() == {"toy_doubled": 4, "toy_squared": 4, "toy_total": 2}
    assert "nothing is left to rescue" in said("rescue", "toy", "step1")
    attempts = attempts_of(world.site.submissions, "toy", "step1")
    assert [(attempt.key.attempt, attempt.is_rescue) for attempt in attempts] == [(1, False), (2, True), (3, True)]


@pytest.mark.integration
def test_a_rescue_of_one_of_two_nights_keeps_the_books_of_both(world):
    first, second = "20261101", "20261102"
    assert world.run(
        first, second, config=["double:behaviour={'2026110100001-1': 'raise', '2026110200002-0': 'raise'}"]
    ).success
    assert len(world.failed()) == 2

    assert world.push_the_button(first).success

    assert (world.recorded(first), world.recorded(second)) == ([4, 3], [3])
    (left,) = world.failed()
    assert "exposure=2026110200002" in left
    assert f"({first}, {second}): 1 failed, 2 quanta wait" in said("rescue", "toy", "step1")
    assert "nothing is left to rescue" in said("rescue", "toy", "step1", first)
    assert f"({second}): 1 failed, 2 quanta wait" in said("rescue", "toy", "step1", second)

    again = world.push_the_button(first)

    assert again.success
    assert all(check.passed for check in again.get_asset_check_evaluations())
    assert (world.recorded(first), world.recorded(second)) == ([4, 3], [3])

    assert world.run(first, second, rescue=True).success

    assert (world.recorded(first), world.recorded(second)) == ([4, 3], [4, 3])
    assert world.failed() == []
    assert "nothing is left to rescue" in said("rescue", "toy", "step1")
    attempts = attempts_of(world.site.submissions, "toy", "step1")
    assert {attempt.key.partitions for attempt in attempts} == {(first, second)}


@pytest.mark.integration
def test_a_rescue_of_several_submissions_leaves_those_that_have_nothing_for_it(world):
    first, second = "20261101", "20261102"
    world.run(first, config=["double:behaviour={'2026110100001-1': 'raise otherwise'}"])
    world.run(second, config=["double:behaviour={'2026110200002-0': 'raise'}"])

    assert not world.run(first, second, rescue=True, causes=["MemoryError"]).success
    assert world.run(first, second, rescue=True, causes=["EvilData"]).success

    assert (world.recorded(first), world.recorded(second)) == ([3], [4, 3])
    assert "exposure=2026110100001" in str(world.failed())


@pytest.mark.integration
def test_what_is_quarantined_is_done_without_and_nothing_is_left(world):
    world.run(**EVIL)
    for exposure, detector in ((2026110100001, 1), (2026110100002, 0)):
        said("quarantine", "add", "toy", f"exposure={exposure}", f"detector={detector}", "--why", "glow")
    assert "2 quanta wait for what failed" in said("rescue", "toy", "step1")

    assert world.push_the_button().success

    assert world.counts() == {"toy_doubled": 2, "toy_squared": 2, "toy_total": 2}
    assert "nothing is left to rescue" in said("rescue", "toy", "step1")


def hold_evil_data(world: World) -> None:
    held = RELEASE | {"policies": [{"name": "ask", "exception": "EvilData", "action": "hold"}]}
    (backfill.RELEASES / "toy.yaml").write_text(yaml.safe_dump(held))
    world.definitions = build_release_definitions(world.site, read_release(backfill.RELEASES / "toy.yaml"))


@pytest.mark.integration
def test_a_failure_held_for_a_decision_fails_the_blocking_check(world):
    hold_evil_data(world)

    result = world.run(**EVIL)

    checks = result.get_asset_check_evaluations()
    assert checks
    assert not any(check.passed for check in checks)
    assert {check.severity for check in checks} == {dg.AssetCheckSeverity.ERROR}
    assert "held for somebody to decide" in checks[0].description
    event = world.instance.get_latest_materialization_event(dg.AssetKey(["toy", "toy_doubled"]))
    text = event.asset_materialization.metadata["failures"].value
    assert "double: toy_tasks.EvilData: this exposure is evil: held for somebody to decide (ask)" in text

    rescue_of_another_cause = world.run(rescue=True, causes=["ValueError"])

    checks = rescue_of_another_cause.get_asset_check_evaluations()
    assert {check.severity for check in checks if not check.passed} == {dg.AssetCheckSeverity.ERROR}
    assert not any(check.passed for check in checks)
    assert "1 failure is held for somebody to decide. 1 double: toy_tasks.EvilData" in checks[0].description

    assert world.push_the_button().success
    assert "nothing is left to rescue" in said("rescue", "toy", "step1")


@pytest.mark.integration
def test_a_failure_held_in_one_night_holds_no_other(world):
    hold_evil_data(world)

    result = world.run("20261101", "20261102", config=["double:behaviour={'2026110100001-1': 'raise'}"])

    passed = {(check.partition, check.passed) for check in result.get_asset_check_evaluations()}
    assert passed == {("20261101", False), ("20261102", True)}


def test_quarantine_is_listed_with_why_and_can_be_taken_back(world):
    assert "is left out from now on" in said("quarantine", "add", "toy", "visit=7,", "detector=3", "--why", "glow")
    assert "was left out already" in said("quarantine", "add", "toy", "detector=3", "visit=7", "--why", "again")
    assert "glow" in said("quarantine", "list", "toy")

    assert "taken in again" in said("quarantine", "readmit", "toy", "visit=7", "detector=3", "--why", "mended")

    assert "glow" not in said("quarantine", "list", "toy")
    assert "mended" in said("quarantine", "list", "toy", "--history")
    with closing(Casebook(world.site.ledger)) as casebook:
        assert casebook.quarantined("toy") == []
    with pytest.raises(Rejected, match="is not left out"):
        said("quarantine", "readmit", "toy", "visit=7", "detector=3", "--why", "again")


def case(number: int, **changes: str) -> Case:
    values = {"release": "toy", "step": "step1", "submission": f"s{number}", "dagster_run": "r", "task": "double"}
    values |= {"exception": "E", "message": "m", "log": "", "action": "ignore", "policy": "p"} | changes
    return Case(data_id={"detector": number}, **values)


def test_failures_that_differ_by_numbers_are_one_line_and_of_many_causes_the_rarest_are_counted():
    stars = [failure(number, f"{number} stars are too few") for number in range(3_000)]
    others = [failure(number, f"trouble {chr(ord('a') + number)}") for number in range(25)]

    first, *lines, last = rescue.cause_lines([*others, *stars])

    assert first == "  3000 × double: E: 0 stars are too few; such as detector=0, log none"
    assert len(lines) == 19
    assert last == "  6 of 6 more causes: see --show"


def failure(number: int, message: str) -> QuantumFailure:
    return QuantumFailure(task="double", data_id={"detector": number}, exception="E", message=message, log="")


@pytest.mark.parametrize("brackets", ["[/cephfs/notes/42]", "[ticket 12]", "[red]"])
def test_square_brackets_in_what_people_and_exceptions_say_are_shown_as_they_are(world, brackets):
    said("quarantine", "add", "toy", "visit=7", "detector=3", "--why", f"see {brackets}")
    with closing(Casebook(world.site.ledger)) as casebook:
        casebook.note([case(1, exception="", message=brackets)])

    assert f"see {brackets}" in said("quarantine", "list", "toy")
    assert brackets.split()[0] in said("rescue", "toy", "step1", "--show")


def test_a_list_of_cases_that_is_cut_says_so(world):
    with closing(Casebook(world.site.ledger)) as casebook:
        casebook.note(case(number) for number in range(200))
        whole = said("rescue", "toy", "step1", "--show")
        casebook.note([case(200)])
    cut = said("rescue", "toy", "step1", "--show")

    assert "detector=0 " in whole
    assert "the latest" not in whole
    assert cut.endswith("the latest 200; there are earlier ones")
    assert "detector=200 " in cut
    assert "detector=0 " not in cut


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["visti=7"], "visti: no dimension; did you mean visit?"),
        (["visit=7", "detctor=3"], "detctor: no dimension; did you mean detector?"),
        (["visit=seven"], "visit=seven: is a number"),
        (["visit=²"], "visit=²: is a number"),
        (["visit=7", "visit=8"], "visit: is named twice; give one data ID at a time"),
        (["visit=7", "band=r"], "band: follows from the others; leave it out"),
        (["instrument=ToyCam"], "instrument=ToyCam: is the whole release; name a part of it, such as visit=…"),
        (["instrument=ToyCma", "detector=3"], "instrument=ToyCma: toy has no data of it; its instrument is ToyCam"),
    ],
)
def test_what_would_leave_nothing_out_is_not_quarantined(world, words, complaint):
    with pytest.raises(Rejected) as refused:
        said("quarantine", "add", "toy", *words, "--why", "glow")

    assert str(refused.value).startswith(complaint)
    with closing(Casebook(world.site.ledger)) as casebook:
        assert casebook.quarantined("toy") == []


def test_a_name_that_looks_like_a_number_stays_a_name(world):
    said("quarantine", "add", "toy", "physical_filter=620", "--why", "a hole in it")
    with closing(Casebook(world.site.ledger)) as casebook:
        (entry,) = casebook.quarantined("toy")
    assert entry.data_id == {"physical_filter": "620"}
    assert "taken in again" in said("quarantine", "readmit", "toy", "physical_filter=620", "--why", "mended")


@pytest.mark.integration
def test_a_night_is_left_out_with_all_its_exposures(world):
    world.run(**EVIL)

    said("quarantine", "add", "toy", "day_obs=20261101", "--why", "clouds")

    assert "nothing is left to rescue" in said("rescue", "toy", "step1")
    assert world.push_the_button().success
    assert world.failed() == []


@pytest.mark.parametrize("word", ["visit", "=7", "visit="])
def test_a_word_that_is_no_part_of_a_data_id_is_named(word):
    with pytest.raises(Rejected, match="not of the form key=value"):
        rescue.parse_data_id([word])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nosuch", "step1"], "no release 'nosuch'; there are: toy"),
        (["toy", "step9"], "no step 'step9'; its steps: step1"),
        (["toy", "step1"], "toy step1: nothing was submitted so far"),
        (["toy", "step1", "--cause", "("], "not a regular expression"),
        (["toy", "step1", "--memory", "double:4096"], "not of the form task=MB; such as"),
        (["toy", "step1", "--memory", "double=²"], "not of the form task=MB; such as"),
        (["toy", "step1", "--memory", "duoble=4096"], "duoble: no task of step1; its tasks: double, square, sum"),
    ],
)
def test_what_makes_no_sense_is_named_with_what_would(world, arguments, complaint):
    with pytest.raises(Rejected) as refused:
        said("rescue", *arguments)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
