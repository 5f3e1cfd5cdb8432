"""What an operator sees in the web UI after a release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from commands.demonstration import Demonstration

pytestmark = pytest.mark.e2e
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield page
        browser.close()


def test_asset_graph_shows_the_stages_of_the_release(finished: Demonstration, page: Page, artefacts: Path) -> None:
    page.goto(f"{finished.ui}/asset-groups?expanded=", wait_until="domcontentloaded")
    expect(page.get_by_text("1_single_visit").first).to_be_visible()
    expect(page.get_by_text("4_variability").first).to_be_visible()
    page.wait_for_timeout(1500)
    page.screenshot(path=artefacts / "asset-graph.png")


def test_partition_of_a_day_obs_tells_its_quanta(finished: Demonstration, page: Page, artefacts: Path) -> None:
    address = f"{finished.ui}/assets/ci/preliminary_visit_image?view=partitions&partition=20261101"
    page.goto(address, wait_until="domcontentloaded")
    expect(page.get_by_text("quanta done").first).to_be_visible()
    expect(page.get_by_text("peak memory (MB)").first).to_be_visible()
    page.screenshot(path=artefacts / "day-obs-partition.png")


def test_check_of_a_coadd_shows_its_picture(finished: Demonstration, page: Page, artefacts: Path) -> None:
    page.goto(f"{finished.ui}/assets/ci/deep_coadd/g?view=checks&checkDetail=complete", wait_until="domcontentloaded")
    expect(page.get_by_text("Passed").first).to_be_visible()
    page.screenshot(path=artefacts / "coadd-check.png")
    expect(page.get_by_text("picture").first).to_be_visible()


def test_scorecard_has_a_check_for_each_requirement(finished: Demonstration, page: Page, artefacts: Path) -> None:
    page.goto(f"{finished.ui}/assets/ci/scorecard?view=checks", wait_until="domcontentloaded")
    for name in ("PA1", "AM1", "AA1"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.screenshot(path=artefacts / "scorecard.png")
