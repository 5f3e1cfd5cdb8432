import datetime as dt

import pytest

from planning.release import InputSelection, Release, Threshold, Validation
from resources.errors import Rejected
from validation.assessment import assess, compare_collections, draw_tract, report_release
from validation.scorecard import Scorecard, Verdict

NEWER, OLDER = "demo/step5a/0123abcd/1", "demo/step5a/0123abcd/0"


def release(*thresholds, **changes):
    defaults = {
        "name": "demo",
        "description": "Made up",
        "owner": "team:drp",
        "pipeline": "pipelines/DRP.yaml",
        "instrument": "SimCam",
        "skymap": "sim_v1",
        "bands": ("g", "r", "i"),
        "inputs": InputSelection(first_day_obs=20261101, last_day_obs=20261102),
        "input_collections": (),
        "raw_collection": "SimCam/raw/all",
        "expected_detectors": (0, 1, 2, 3),
        "validation": Validation(thresholds=thresholds or (PA1, AM3)),
    }
    return Release(**defaults | changes)


PA1 = Threshold(metric="PA1", bands=("r",), design=5.0, minimum=8.0, unit="mmag", source="LPM-17 PA1", blocking=True)
AM3 = Threshold(metric="AM3", minimum=30.0, unit="mas", source="LPM-17 AM3")


def test_a_release_is_judged_by_what_its_chain_holds(release_repository):
    assessment = assess(release_repository, release())
    assert {row.label: row.verdict for row in assessment.scorecard.rows} == {
        "PA1 r": Verdict.WARNED,
        "AM3 r": Verdict.NOT_MEASURABLE,
    }
    assert list(assessment.tracts) == [0]
    assert assessment.tracts[0].scope == "demo, tract 0"


def test_a_named_tract_without_metrics_is_judged_as_unmeasured(release_repository):
    tract = assess(release_repository, release(), tracts=[4]).tracts[4]
    assert tract.verdict is Verdict.FAILED
    assert {row.verdict for row in tract.rows} == {Verdict.NOT_MEASURABLE}


def test_thresholds_that_contradict_each_other_stop_the_judgement(release_repository):
    with pytest.raises(Rejected, match=r"releases/demo\.yaml: validation\.thresholds\[1\] \(PA1\)"):
        assess(release_repository, release(PA1, PA1))


def test_two_runs_are_judged_by_the_same_thresholds(release_repository):
    comparison = compare_collections(release_repository, release(), OLDER, NEWER)
    row = next(row for row in comparison.rows if row.either.metric == "PA1")
    assert (row.before.value, row.after.value) == (99.0, 6.5)
    assert (row.before.verdict, row.after.verdict) == (Verdict.FAILED, Verdict.WARNED)


def test_a_report_is_made_of_the_repository_alone(release_repository, tmp_path):
    before = assess(release_repository, release(), collections=OLDER).scorecard
    folder, made_at = tmp_path / "report", dt.datetime(2026, 11, 3, tzinfo=dt.UTC)
    index = draw_tract(release_repository, release(), 0, folder / "figures" / "tract0", only=["stellar_locus"])
    page = report_release(
        release_repository, release(), folder, before=before, figures=[("Tract 0", index)], made_at=made_at
    )
    text = page.read_text(encoding="utf-8")
    for told in ("Made up", "stellar_locus.png", "recalibrated_star", "lsst_images", NEWER, "99 mmag"):
        assert told in text
    assert (page.parent / "figures" / "tract0" / "stellar_locus.png").is_file()
    assert Scorecard.from_json((page.parent / "scorecard.json").read_text()).scope == "demo"
