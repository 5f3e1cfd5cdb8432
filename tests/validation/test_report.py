import datetime as dt
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.release import Threshold, Waiver
from validation.comparison import compare
from validation.counts import check_counts
from validation.figures.index import DrawnFigure, FigureIndex, SkippedFigure
from validation.html import element, link, page, table
from validation.metrics import Measurement
from validation.products import ProductCount
from validation.provenance import Provenance
from validation.report import FailedQuantum, Report, write_report
from validation.scorecard import Scorecard, judge

RULES = [
    Threshold(metric="PA1", design=5.0, minimum=8.0, unit="mmag", source="LPM-17 PA1", blocking=True),
    Threshold(metric="AM3", minimum=30.0, unit="mas", source="LPM-17 AM3", waiver=Waiver(by="me", why="small field")),
]
MADE_AT = dt.datetime(2026, 11, 3, 9, 30, tzinfo=dt.UTC)


def scorecard(value, scope="demo"):
    return judge(RULES, [Measurement("PA1", "r", value, "mmag", 120), Measurement("m50", "r", 24.1, "mag", 9)], scope)


class Page(HTMLParser):
    """What a browser would see: tags, references and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in {"src", "href"}]

    def handle_data(self, data):
        self.text += data


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_scorecard_comes_first_and_everything_told_is_there(tmp_path):
    report = Report(
        release="demo",
        scorecard=scorecard(9.0),
        made_at=MADE_AT,
        description="A small survey.",
        failures=[FailedQuantum("isr", "visit=1, detector=2", "RuntimeError", "no overscan", "https://logs/1")],
        products=[ProductCount("visit_image", ("instrument", "visit", "detector"), 1107)],
        checks=check_counts("visit_image", {"20261101": 54}, {"20261101": 50}),
        provenance=Provenance(
            "demo", ("demo/step1a/x/1",), ("demo/inputs",), "DRP.yaml", {"lsst_images": "30.1"}, 9, "abc"
        ),
        known_issues=["The second night was cloudy."],
    )
    shown = read(write_report(report, tmp_path)).text
    told = ["✘ failed", "Held by: PA1 r.", "9 mmag", "≤ 8", "LPM-17 PA1", "no overscan", "1,107", "50 of 54"]
    told += ["demo/step1a/x/1", "lsst_images", "30.1", "abc", "cloudy", "Metrics without a threshold", "24.1"]
    assert [text for text in told if text not in shown] == []
    body = shown[shown.index("Made 2026-11-03 09:30 UTC") :]
    assert body.index("9 mmag") < body.index("no overscan") < body.index("demo/step1a/x/1")


def test_a_report_with_nothing_but_a_scorecard_says_what_is_not_there(tmp_path):
    shown = read(write_report(Report("demo", scorecard(4.0), MADE_AT), tmp_path)).text
    for text in ("None were drawn.", "Not counted.", "Not recorded.", "Nothing holds it."):
        assert text in shown
    for heading in ("Comparison", "Metrics by tract", "Known issues"):
        assert heading not in shown


def test_its_scorecard_can_be_compared_with_later(tmp_path):
    before = scorecard(7.0)
    write_report(Report("demo", before, MADE_AT), tmp_path)
    assert Scorecard.from_json((tmp_path / "scorecard.json").read_text()) == before


def test_a_comparison_and_tracts_have_their_own_sections(tmp_path):
    report = Report(
        "demo",
        scorecard(4.0, "after"),
        MADE_AT,
        tracts={3: scorecard(4.0), 5: scorecard(9.0)},
        comparison=compare(scorecard(9.0, "before"), scorecard(4.0, "after")),
    )
    shown = read(write_report(report, tmp_path)).text
    assert "1 verdict changed; failed → warned" in shown
    assert "✘ failed → ✔ passed" in shown
    assert "Metrics by tract" in shown


def test_pictures_are_copied_unless_they_lie_in_the_folder(tmp_path):
    outside, inside = tmp_path / "elsewhere", tmp_path / "report" / "pictures"
    indices = []
    for folder in (outside, inside):
        folder.mkdir(parents=True)
        (folder / "locus.png").write_bytes(b"PNG")
        drawn = DrawnFigure("locus", "Stellar locus", "Narrow is good.", "object", "locus.png", "locus.thumbnail.png")
        indices.append(FigureIndex(folder, (drawn,), (SkippedFigure("depth", "Depth", "map", "never made"),)))
    figures = [("tract 0", indices[0]), ("tract 1", indices[1])]
    found = read(write_report(Report("demo", scorecard(4.0), MADE_AT, figures=figures), tmp_path / "report"))
    pictures = sorted({ref for ref in found.references if ref.endswith(".png")})
    assert pictures == ["figures/0/locus.png", "pictures/locus.png"]
    assert all((tmp_path / "report" / picture).is_file() for picture in pictures)
    assert "Not drawn: Depth: never made." in found.text


def test_nothing_is_requested_from_anywhere(tmp_path):
    path = write_report(Report("demo", scorecard(4.0), MADE_AT), tmp_path)
    assert not re.search(r"https?://|@import|url\(|<script", path.read_text())
    assert "default-src 'none'" in path.read_text()


HOSTILE = "</style></td><script>alert('x')</script><img src=x onerror=1>&\"'"


def test_no_text_can_become_markup(tmp_path):
    waiver = Waiver(by=HOSTILE, why=HOSTILE)
    rules = [Threshold(metric=HOSTILE, minimum=1.0, source=HOSTILE, waiver=waiver)]
    report = Report(
        release=HOSTILE,
        scorecard=judge(rules, [Measurement(HOSTILE, HOSTILE, 2.0, HOSTILE, 1, HOSTILE)], HOSTILE),
        made_at=MADE_AT,
        description=HOSTILE,
        failures=[FailedQuantum(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "javascript:alert(1)")],
        known_issues=[HOSTILE],
        provenance=Provenance(HOSTILE, (HOSTILE,)),
    )
    found = read(write_report(report, tmp_path))
    assert not {"script", "img"} & set(found.tags)
    assert not [reference for reference in found.references if "javascript" in reference]
    assert found.text.count("alert('x')") >= 8


@given(st.text(), st.text())
def test_any_text_is_shown_as_itself(cell, attribute):
    written = page("t", element("p", cell, title=attribute), table(("head",), [(cell,)]))
    assert written.encode("utf-8")
    assert [tag for tag in Page(written).tags if tag not in {"meta", "title", "style"}] == (
        ["html", "head", "body", "p", "div", "table", "thead", "tr", "th", "tbody", "tr", "td"]
    )


@pytest.mark.parametrize("address", ["https://logs/1?x=2", "logs/isr_1.log", "file:///scratch/1.log"])
def test_web_file_and_relative_addresses_are_links(address):
    assert link("log", address).get("href") == address


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "two words", ""])
def test_other_addresses_stay_text(address):
    assert link("log", address) == "log"


def test_judging_and_reporting_import_no_drawing_library():
    modules = "assessment, comparison, counts, metrics, products, provenance, rendering, report, scorecard"
    check = f"import sys; from validation import {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_flood_of_failures_is_cut_and_counted(tmp_path):
    failures = [FailedQuantum("isr", f"visit={n}", "E", "m") for n in range(700)]
    found = read(write_report(Report("demo", scorecard(4.0), MADE_AT, failures=failures), tmp_path))
    assert "700 in all." in found.text
    assert "visit=499" in found.text
    assert "visit=500" not in found.text
