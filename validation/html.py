"""The few pieces of HTML that the report is built from: elements that escape what they hold.

Belongs here: making elements, tables and pages as trees, so that no text can become markup. Doesn't: what a
report says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

Element = ElementTree.Element
Content = Element | str

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LINKABLE = re.compile(r"(https?|file)://[^\s]+$|[\w./-]+$")

STYLE = """
:root { --ink: #1f2328; --faint: #667080; --line: #dfe3e8; --accent: #0b5fa5; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 2rem 4rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 2px solid var(--line); } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .3rem 0; } a { color: var(--accent); } .faint { color: var(--faint); } nav a { margin-right: 1.1rem; }
header { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline; } nav { margin: .8rem 0 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th { text-align: left; font-weight: 600; color: var(--faint); border-bottom: 2px solid var(--line); }
th, td { padding: .3rem .7rem .3rem 0; vertical-align: top; } td { border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.source { white-space: nowrap; }
td.message { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; white-space: nowrap; font-size: .85em;
  font-weight: 600; border: 1px solid currentColor; }
.passed, .better { color: #0a6b4b; background: #e3f5ee; } .warned { color: #7a5200; background: #fff3d6; }
.failed, .worse { color: #a3230b; background: #fde7e2; } .waived { color: #71357e; background: #f5e9f8; }
.not-measurable, .same, .absent, .appeared, .vanished { color: #56606c; background: #eff1f4; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.tile { padding: .5rem 1rem; border-radius: .5rem; min-width: 7rem; } .tile b { font-size: 1.5rem; display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1.4rem; }
figure { margin: 0; break-inside: avoid; } figure img { max-width: 100%; border: 1px solid var(--line); }
figcaption { font-size: .88rem; color: var(--faint); } figcaption b { color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1rem; } .figures { grid-template-columns: 1fr; } }
@media print { body { font-size: 10pt; padding: 0; max-width: none; } nav { display: none; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } .figures { grid-template-columns: 1fr 1fr; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """Make an element.

    Parameters
    ----------
    tag
        Its name.
    *content
        Text, which is escaped when written, and elements.
    **attributes
        A trailing underscore is dropped (``class_``).
    """
    made = Element(tag, {name.rstrip("_"): _clean(value) for name, value in attributes.items()})
    for part in content:
        if isinstance(part, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + _clean(part)
            else:
                made.text = (made.text or "") + _clean(part)
        else:
            made.append(part)
    return made


def table(
    head: Sequence[str], rows: Iterable[Sequence[Content]], *, numbers: Sequence[int] = (), **kinds: int
) -> Element:
    """Make a table that scrolls where it is too wide.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells.
    numbers
        Positions of columns that hold numbers.
    **kinds
        CSS class of a column's cells and the column's position.
    """
    classes = {position: kind for kind, position in kinds.items()} | dict.fromkeys(numbers, "number")

    def cell(tag: str, position: int, content: Content) -> Element:
        return element(tag, content, **({"class": classes[position]} if position in classes else {}))

    top = element("thead", element("tr", *(cell("th", k, name) for k, name in enumerate(head))))
    body = element("tbody", *(element("tr", *(cell("td", k, c) for k, c in enumerate(row))) for row in rows))
    return element("div", element("table", top, body), class_="scroll")


def link(text: str, address: str) -> Content:
    """Make a link, of web and file addresses and plain relative paths only; anything else stays text.

    Parameters
    ----------
    text
        Shown.
    address
        Where it leads.
    """
    return element("a", text, href=address) if _LINKABLE.match(address) else text


def page(title: str, *content: Content) -> str:
    """Make a page that requests nothing from anywhere but its own folder.

    Parameters
    ----------
    title
        Of the window.
    *content
        Of the body.
    """
    policy = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", STYLE),
    )
    tree = element("html", head, element("body", *content), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(tree, encoding="unicode", method="html") + "\n"


def _clean(text: str) -> str:
    return _CONTROL.sub("�", text)
