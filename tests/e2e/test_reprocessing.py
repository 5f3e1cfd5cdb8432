"""The second act: a step again with another configuration, and what follows from it."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.finished import finished_submissions
from commands.demo import SECOND_COADD
from commands.demonstration import Demonstration
from commands.progress import Standing
from drp_assets.scorecard import judge_release
from resources.butler import open_butler
from validation.comparison import compare

pytestmark = pytest.mark.e2e


def submissions(finished: Demonstration) -> Counter[str]:
    """How many submissions each step has made so far."""
    with finished.instance() as instance:
        return Counter(submission.step for submission in finished_submissions(instance))


def coadd_runs(finished: Demonstration) -> set[str]:
    """Runs that hold the coadds which the release shows."""
    butler = open_butler(finished.site.butler)
    return {ref.run for ref in butler.query_datasets("deep_coadd", collections=finished.release.chain)}


def test_one_backfill_makes_coadds_and_all_that_depends_on_them_once_again(finished: Demonstration) -> None:
    scorecard, made, (run,) = (
        judge_release(finished.site, finished.release),
        submissions(finished),
        coadd_runs(finished),
    )
    delivery = finished.start(lambda _: None)

    _, began = finished.reprocess([SECOND_COADD])
    assert finished.watch(delivery, lambda _: None, judged_since=began) is Standing.COMPLETE, finished.failures()

    again = submissions(finished) - made
    assert again == Counter({"step3a": 1, "step3b": 1, "step4a": 1, "step4c": 1, "step5a": 1})
    (second_run,) = coadd_runs(finished)
    assert second_run != run
    butler = open_butler(finished.site.butler)
    assert butler.query_datasets("deep_coadd", collections=run), "what was made first is still there"
    changed = compare(scorecard, judge_release(finished.site, finished.release)).rows
    assert any(row.delta for row in changed)
