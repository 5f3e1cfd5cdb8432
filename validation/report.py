"""The report of a release: a folder of plain HTML and pictures that opens anywhere, also in ten years.

Belongs here: what the report says and in which order. Doesn't: drawing figures (`validation.figures`), reading the
Butler, how HTML is written (`validation.html`).
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from validation.bands import bands_in
from validation.comparison import Comparison
from validation.counts import CheckResult, Severity
from validation.figures.index import FigureIndex
from validation.html import Content, Element, element, link, page, table
from validation.metrics import Measurement
from validation.rendering import number_text, remark, verdict_text
from validation.scorecard import Row, Scorecard, Verdict
from validation.thresholds import limit_text

if TYPE_CHECKING:
    from validation.products import ProductCount
    from validation.provenance import Provenance

FAILURES_SHOWN = 500
TRACTS_SHOWN = 40
SCORECARD_FILE = "scorecard.json"


@dataclass(frozen=True, slots=True)
class FailedQuantum:
    """A quantum that failed, as the report lists it."""

    task: str
    data_id: str
    exception: str
    message: str
    log: str = ""
    node: str = ""
    memory_mb: str = ""


@dataclass(frozen=True)
class Report:
    """Everything a report tells.

    Parameters
    ----------
    release, description
        As the release file says.
    scorecard
        Of the whole release.
    made_at
        When; with a time zone.
    tracts
        Scorecard of each tract, for the map of metric by tract.
    figures
        Heading and index of each set of figures, such as ``tract 0``.
    comparison
        With another run or release.
    failures
        Quanta that failed.
    products
        Counts of datasets.
    checks
        Of counts; those that passed are only counted.
    provenance
        By what and from what it was made.
    known_issues
        A sentence each.
    """

    release: str
    scorecard: Scorecard
    made_at: dt.datetime
    description: str = ""
    tracts: Mapping[int, Scorecard] = field(default_factory=dict)
    figures: Sequence[tuple[str, FigureIndex]] = ()
    comparison: Comparison | None = None
    failures: Sequence[FailedQuantum] = ()
    products: Sequence[ProductCount] = ()
    checks: Sequence[CheckResult] = ()
    provenance: Provenance | None = None
    known_issues: Sequence[str] = ()


def write_report(report: Report, folder: Path) -> Path:
    """Write a report as a folder that needs nothing else.

    Parameters
    ----------
    report
        What it tells.
    folder
        Made if missing. Holds ``index.html``, ``scorecard.json`` and the pictures, which are copied here unless they
        are here already.

    Returns
    -------
    pathlib.Path
        The page to open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections: list[tuple[str, str, list[Content]]] = [
        ("scorecard", "Scorecard", _scorecard(report.scorecard)),
        ("comparison", "Comparison", _comparison(report.comparison)),
        ("tracts", "Metrics by tract", _tracts(report.tracts)),
        ("figures", "Figures", _figures(report.figures, folder)),
        ("others", "Metrics without a threshold", _unjudged(report.scorecard.unjudged)),
        ("failures", "Failed quanta", _failures(report.failures)),
        ("products", "Products", _products(report)),
        ("issues", "Known issues", [element("ul", *(element("li", i) for i in report.known_issues))]),
        ("provenance", "Provenance", _provenance(report.provenance)),
    ]
    told = {
        "comparison": report.comparison is not None,
        "tracts": len(report.tracts) > 1,
        "others": bool(report.scorecard.unjudged),
        "issues": bool(report.known_issues),
    }
    sections = [section for section in sections if told.get(section[0], True)]
    title = f"Release {report.release}"
    body: list[Content] = [
        element("header", element("h1", title), _badge(report.scorecard.verdict)),
        element("p", report.description),
        element("p", f"Made {report.made_at:%Y-%m-%d %H:%M %Z}", class_="faint"),
        element("nav", *(element("a", name, href=f"#{anchor}") for anchor, name, _ in sections)),
    ]
    for anchor, name, content in sections:
        body.append(element("section", element("h2", name), *content, id=anchor))
    path = folder / "index.html"
    path.write_text(page(f"{title}: {report.scorecard.verdict}", *body), encoding="utf-8")
    (folder / SCORECARD_FILE).write_text(report.scorecard.to_json() + "\n", encoding="utf-8")
    return path


def _badge(verdict: Verdict | None) -> Element:
    if verdict is None:
        return element("span", "absent", class_="verdict absent")
    return element("span", verdict_text(verdict), class_=f"verdict {verdict.replace(' ', '-')}")


def _scorecard(scorecard: Scorecard) -> list[Content]:
    tiles = [
        element("div", element("b", str(count)), verdict, class_=f"tile {verdict.replace(' ', '-')}")
        for verdict, count in scorecard.counts.items()
    ]
    holding = ", ".join(row.label for row in scorecard.holding)
    said = f"Held by: {holding}." if holding else "Nothing holds it."
    rows = [
        (
            row.metric,
            row.band,
            number_text(row.value, row.unit),
            limit_text(row.kind, row.design),
            limit_text(row.kind, row.minimum),
            f"{row.n:,}" if row.n else "",
            _badge(row.verdict),
            ("blocking" if row.blocking else "informative"),
            remark(row),
            row.source,
        )
        for row in scorecard.rows
    ]
    head = ("metric", "band", "measured", "design", "minimum", "n", "verdict", "gate", "remarks", "source")
    return [
        element("div", *tiles, class_="tiles"),
        element("p", said),
        table(head, rows, numbers=(2, 3, 4, 5), source=9),
    ]


def _unjudged(measurements: Sequence[Measurement]) -> list[Content]:
    """Show what has no threshold, a metric a row and a band a column."""
    bands = bands_in(m.band for m in measurements)
    metrics = list(dict.fromkeys(m.metric for m in measurements))
    found = {(m.metric, m.band): m for m in measurements}
    rows: list[list[Content]] = []
    for metric in metrics:
        mine = [found[metric, band] for band in bands if (metric, band) in found]
        values = [number_text(found[metric, band].value) if (metric, band) in found else "" for band in bands]
        unit = next((m.unit for m in mine if m.unit), "")
        rows.append([metric, *values, unit, mine[0].detail])
    head = ("metric", *(band or "any band" for band in bands), "unit", "remarks")
    return [table(head, rows, numbers=range(1, len(bands) + 1))]


def _comparison(comparison: Comparison | None) -> list[Content]:
    if comparison is None:
        return []
    rows = [
        (
            row.either.metric,
            row.either.band,
            _measured(row.before),
            _measured(row.after),
            number_text(row.delta, signed=True),
            element("span", row.change, class_=f"verdict {row.change}"),
            element("span", _badge(row.before.verdict if row.before else None), " → ", _after(row.after))
            if row.verdict_changed
            else _after(row.after),
        )
        for row in comparison.rows
    ]
    head = ("metric", "band", comparison.before.scope, comparison.after.scope, "difference", "change", "verdict")
    return [element("p", comparison.summary), table(head, rows, numbers=(2, 3, 4))]


def _measured(row: Row | None) -> str:
    return number_text(row.value, row.unit) if row else "–"


def _after(row: Row | None) -> Element:
    return _badge(row.verdict if row else None)


def _tracts(tracts: Mapping[int, Scorecard]) -> list[Content]:
    """Show each metric in each tract; of many tracts, those with most failures."""
    order = sorted(tracts, key=lambda tract: (-tracts[tract].counts[Verdict.FAILED], tract))[:TRACTS_SHOWN]
    shown = sorted(order)
    labels = list(dict.fromkeys(row.label for tract in shown for row in tracts[tract].rows))
    cells = {tract: {row.label: row for row in tracts[tract].rows} for tract in shown}
    rows: list[list[Content]] = [[label, *(_cell(cells[tract].get(label)) for tract in shown)] for label in labels]
    numbers = tuple(range(1, len(shown) + 1))
    content: list[Content] = [table(("metric", *map(str, shown)), rows, numbers=numbers)]
    if len(shown) < len(tracts):
        content.insert(0, element("p", f"The {len(shown)} of {len(tracts)} tracts with most failures.", class_="faint"))
    return content


def _cell(row: Row | None) -> Element:
    if row is None:
        return element("span", "–")
    return element("span", number_text(row.value), class_=f"verdict {row.verdict.replace(' ', '-')}")


def _figures(sets: Sequence[tuple[str, FigureIndex]], folder: Path) -> list[Content]:
    content: list[Content] = []
    for number, (heading, index) in enumerate(sets):
        place = Path("figures") / str(number)
        drawn = []
        for figure in index.drawn:
            source, target = index.folder / figure.file, place / figure.file
            if index.folder.resolve().is_relative_to(folder.resolve()):
                target = source.resolve().relative_to(folder.resolve())
            else:
                (folder / place).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / target)
            picture = element("img", src=target.as_posix(), alt=figure.title, loading="lazy")
            caption = element("figcaption", element("b", f"{figure.title}. "), figure.caption)
            drawn.append(element("figure", element("a", picture, href=target.as_posix()), caption))
        content += [element("h3", heading), element("div", *drawn, class_="figures")]
        if index.skipped:
            missing = "; ".join(f"{figure.title}: {figure.reason}" for figure in index.skipped)
            content.append(element("p", f"Not drawn: {missing}.", class_="faint"))
    return content or [element("p", "None were drawn.", class_="faint")]


def _failures(failures: Sequence[FailedQuantum]) -> list[Content]:
    if not failures:
        return [element("p", "None.")]
    rows = [
        (f.task, f.data_id, f.exception, f.message, f.node, f.memory_mb, link("log", f.log) if f.log else "")
        for f in failures[:FAILURES_SHOWN]
    ]
    content: list[Content] = [element("p", f"{len(failures):,} in all.")]
    if len(rows) < len(failures):
        content.append(element("p", f"The first {len(rows)} are listed.", class_="faint"))
    return [*content, table(("task", "data ID", "exception", "message", "node", "memory (MB)", "log"), rows, message=3)]


def _products(report: Report) -> list[Content]:
    content: list[Content] = []
    if report.checks:
        wrong = sorted((c for c in report.checks if not c.passed), key=lambda c: (not c.blocks, c.product, c.partition))
        content.append(element("p", f"{len(report.checks) - len(wrong)} of {len(report.checks)} checks passed."))
        if wrong:
            rows = [(c.product, c.partition, c.name, _severity(c), c.message, ", ".join(c.missing)) for c in wrong]
            content.append(table(("product", "partition", "check", "", "found", "among them"), rows))
    if report.products:
        rows_of = [(p.product, ", ".join(p.dimensions), f"{p.datasets:,}") for p in report.products]
        content.append(table(("product", "dimensions", "datasets"), rows_of, numbers=(2,)))
    return content or [element("p", "Not counted.", class_="faint")]


def _severity(check: CheckResult) -> Element:
    return _badge(Verdict.FAILED if check.severity is Severity.ERROR else Verdict.WARNED)


def _provenance(provenance: Provenance | None) -> list[Content]:
    if provenance is None:
        return [element("p", "Not recorded.", class_="faint")]
    facts = [
        ("collection", provenance.collection),
        ("pipeline", provenance.pipeline),
        ("inputs", ", ".join(provenance.inputs)),
        ("runs", ", ".join(provenance.runs)),
        ("configurations", f"{provenance.configurations}, digest {provenance.configuration_digest or 'none'}"),
        *provenance.lsst_packages.items(),
    ]
    terms = [part for name, value in facts if value for part in (element("dt", name), element("dd", value))]
    return [element("dl", *terms)]
