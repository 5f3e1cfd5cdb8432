"""One detector of one visit can't be read, on each of two nights: what an operator sees, and how it is made good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import pytest
import requests
from lsst.pipe.base.quantum_graph import ProvenanceQuantumGraph
from playwright.sync_api import expect, sync_playwright

from commands.demonstration import Demonstration
from commands.progress import Standing
from drp_assets.reporting import read_failures
from launchers.attempts import attempts_of
from resources.butler import open_butler
from simulator.delivery import Delivery
from simulator.survey import CI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

FIRST, SECOND = "20261101", "20261102"
DETECTOR = 4
VISITS = {FIRST: 2026110100004, SECOND: 2026110200004}
RAWS = [f"SC_S_{day}_000004_R22_S11.fits" for day in VISITS]
ISR = {("isr", visit, DETECTOR) for visit in VISITS.values()}
DESCENDANTS = {("calibrateImage", visit, DETECTOR) for visit in VISITS.values()}
CAUSE = "Header missing END card"
FITS_BLOCK_BYTES = 2880
PATIENCE_S = 1200.0

RESCUE_JOB = """
mutation Rescue($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
  }
}
"""

type Became = dict[tuple[str, int, int], str]


@dataclass
class Broken:
    """A release that is done but for two raws, with what they should have been."""

    demonstration: Demonstration
    delivery: Delivery
    whole: dict[Path, bytes]

    def became(self, *, is_rescue: bool) -> list[Became]:
        """What became of each attempt's quanta, by task, visit and detector."""
        attempts = attempts_of(self.demonstration.site.submissions, "ci", "step1a")
        return [quanta(attempt.folder) for attempt in attempts if attempt.is_rescue is is_rescue]

    def drp(self, *arguments: str) -> str:
        """Run the command as an operator does."""
        program = Path(sys.executable).parent / "drp"
        environment = {**os.environ, "DRP_UI": self.demonstration.ui, "COLUMNS": "200"}
        command = [str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    def push_the_button(self, day: str) -> None:
        """Launch the rescue's job for a partition, as the UI does."""
        where = {"repositoryLocationName": "ci", "repositoryName": "__repository__"}
        selector = {"partitionSetName": "rescue_step1a_partition_set", "repositorySelector": where}
        asked = {"query": RESCUE_JOB, "variables": {"params": {"selector": selector, "partitionNames": [day]}}}
        answer = requests.post(f"{self.demonstration.ui}/graphql", json=asked, timeout=60).json()
        assert answer["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer

    def is_done(self) -> bool:
        """Whether the release is complete, after all that runs has ended."""
        return self.demonstration.watch(self.delivery, lambda _: None) is Standing.COMPLETE

    def record(self, product: str, day: str) -> dg.EventLogRecord:
        """The latest materialisation of a product's partition."""
        filters = dg.AssetRecordsFilter(dg.AssetKey(["ci", product]), asset_partitions=[day])
        with self.demonstration.instance() as instance:
            (record,) = instance.fetch_materializations(filters, limit=1).records
        return record

    def counts(self, product: str, day: str) -> tuple[int, int]:
        """How many datasets there are by Dagster's books, and should be."""
        materialization = self.record(product, day).asset_materialization
        assert materialization is not None
        there, expected = (materialization.metadata[name].value for name in ("datasets", "datasets expected"))
        return int(str(there)), int(str(expected))


def quanta(folder: Path) -> Became:
    """What became of a submission's quanta."""
    with ProvenanceQuantumGraph.from_args(str(folder / "provenance.qg")) as (graph, _):
        nodes = graph.bipartite_xgraph.nodes
        return {
            (label, int(data_id.get("visit", data_id.get("exposure"))), int(data_id["detector"])): nodes[node][
                "status"
            ].name
            for label, found in graph.quanta_by_task.items()
            for data_id, node in found.items()
        }


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not for {PATIENCE_S:.0f} s: {what}"
        time.sleep(1.0)


@pytest.fixture(scope="module")
def broken(finished: Demonstration, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """The survey with raws that were written badly at their source: size and checksum are as announced."""
    state = tmp_path_factory.mktemp("broken")
    # The other tests' files, but for those that are written here.
    shutil.copytree(finished.state / "survey", state / "survey", copy_function=os.link)
    with patch.dict(os.environ):
        demonstration = Demonstration(state, CI)
        try:
            delivery = demonstration.start(lambda _: None)
            files, whole = list(delivery.files), {}
            for number, file in enumerate(files):
                if not file.name.endswith(tuple(RAWS)):
                    continue
                raw = delivery.path(file)
                content = whole[raw] = raw.read_bytes()
                place = content.index(b"XTENSION")
                bad = content[:place] + bytes(FITS_BLOCK_BYTES) + content[place + FITS_BLOCK_BYTES :]
                raw.unlink()
                raw.write_bytes(bad)
                files[number] = replace(file, adler32=f"{zlib.adler32(bad):08x}")
            assert len(whole) == len(RAWS)
            delivery = replace(delivery, files=tuple(files))
            demonstration.publish(delivery)
            world = Broken(demonstration, delivery, whole)
            wait_for("the release is done", world.is_done)
            yield world
        finally:
            demonstration.stop()


def test_descendants_are_pruned_and_everything_else_is_done(broken: Broken) -> None:
    became = {quantum: status for each in broken.became(is_rescue=False) for quantum, status in each.items()}
    assert len(became) == 2 * broken.demonstration.survey.raw_count
    assert {quantum for quantum, status in became.items() if status == "FAILED"} == ISR
    assert {quantum for quantum, status in became.items() if status == "BLOCKED"} == DESCENDANTS
    assert set(became.values()) == {"SUCCESSFUL", "FAILED", "BLOCKED"}
    assert broken.became(is_rescue=True) == []
    butler = open_butler(broken.demonstration.site.butler)
    images = butler.query_datasets("preliminary_visit_image", collections="ci")
    assert len(images) == broken.demonstration.survey.raw_count - len(RAWS)
    assert butler.query_datasets("object", collections="ci")


def test_the_ui_names_the_cause_where_an_operator_looks_first(broken: Broken, artefacts: Path) -> None:
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        page = browser.new_page(viewport={"width": 2400, "height": 1000})  # causes hold whole paths
        page.set_default_timeout(PATIENCE_S * 1000)
        address = f"{broken.demonstration.ui}/assets/ci/post_isr_image?view=partitions&partition={FIRST}"
        page.goto(address, wait_until="domcontentloaded")
        # The UI folds a list up that is long, as that of two nights in one submission is.
        folded = page.get_by_text("[Show Markdown]")
        expect(page.get_by_text(CAUSE).or_(folded).first).to_be_visible(timeout=PATIENCE_S * 1000)
        if folded.count():
            folded.first.click()
        expect(page.get_by_text(CAUSE).first).to_be_visible(timeout=PATIENCE_S * 1000)
        page.screenshot(path=artefacts / "failed-partition.png")
        browser.close()


def test_the_command_and_the_uis_job_do_exactly_what_failed_and_the_release_is_whole(broken: Broken) -> None:
    demonstration = broken.demonstration
    told = broken.drp("rescue", "ci", "step1a", FIRST)
    assert f"({FIRST}): 1 failed, 1 quanta wait for what failed" in told
    assert CAUSE in told
    for raw, content in broken.whole.items():
        raw.write_bytes(content)
    recorded = {day: broken.record("preliminary_visit_image", day).timestamp for day in VISITS}

    # One of the two waits for the other, where both nights were one submission.
    broken.push_the_button(SECOND)
    assert "asked for" in broken.drp("rescue", "ci", "step1a", FIRST, "--really")

    def are_recorded() -> bool:
        return all(broken.record("preliminary_visit_image", day).timestamp > recorded[day] for day in VISITS)

    wait_for("both rescues are recorded", are_recorded)
    rescues = broken.became(is_rescue=True)
    done = {quantum: status for each in rescues for quantum, status in each.items()}
    assert done == dict.fromkeys(ISR | DESCENDANTS, "SUCCESSFUL")
    assert [len(each) for each in rescues] == [2, 2], "one a night, each its own"
    assert all(len({visit for _, visit, _ in each}) == 1 for each in rescues)
    whole = demonstration.survey.raw_count // len(VISITS)
    for day in VISITS:
        assert broken.counts("post_isr_image", day) == (whole, whole)
        assert broken.counts("preliminary_visit_image", day) == (whole, whole)
    assert "nothing is left to rescue" in broken.drp("rescue", "ci", "step1a")
    assert [each for each in read_failures(demonstration.site, demonstration.release) if CAUSE in each.message] == []

    wait_for("all that follows is done again", broken.is_done)
    butler = open_butler(demonstration.site.butler)
    images = butler.query_datasets("preliminary_visit_image", collections="ci")
    assert len(images) == demonstration.survey.raw_count
