"""The house keeps its rules: who may import whom, and that every room says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
EVERYTHING = "all"
ROOMS: dict[str, set[str] | str] = {
    "drp_assets": {"sensors", "launchers", "arrivals", "validation", "planning", "resources"},
    "sensors": {"arrivals", "planning", "resources"},
    "commands": EVERYTHING,
    "arrivals": {"resources"},
    # The errors and the strict reading of documents are shared by all who read what people write.
    "planning": {"resources.errors", "resources.documents"},
    "launchers": {"planning", "resources"},
    "validation": {"planning", "resources"},
    "resources": set(),
    "drp_tasks": set(),
    "simulator": {"drp_tasks"},
    "services": set(),
    "benchmarks": EVERYTHING,
}
WITHOUT_DAGSTER = ("arrivals", "planning", "validation", "drp_tasks", "simulator", "services")


def modules(room: str) -> list[Path]:
    return sorted((TOP / room).rglob("*.py"))


def imports(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import; write the room's name"
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_the_design_allows(room: str) -> None:
    allowed = ROOMS[room]
    if allowed == EVERYTHING:
        return
    for module in modules(room):
        for name in imports(module):
            head = name.partition(".")[0]
            if head in ROOMS and head != room:
                assert head in allowed or name in allowed, f"{module.relative_to(TOP)} imports {name}"


@pytest.mark.parametrize("room", WITHOUT_DAGSTER)
def test_room_knows_nothing_of_dagster(room: str) -> None:
    for module in modules(room):
        assert not any(name.partition(".")[0] == "dagster" for name in imports(module)), module.relative_to(TOP)


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_belongs_in_it(room: str) -> None:
    for module in modules(room):
        docstring = ast.get_docstring(ast.parse(module.read_text())) or ""
        assert docstring, f"{module.relative_to(TOP)} has no docstring"
        if module.name != "__init__.py":
            assert "Belongs here" in docstring, f"{module.relative_to(TOP)} doesn't say what belongs in it"
            assert "Doesn't" in docstring, f"{module.relative_to(TOP)} doesn't say what doesn't belong in it"


def test_every_room_of_the_tree_is_known() -> None:
    packages = {path.parent.name for path in TOP.glob("*/__init__.py")}
    assert packages == ROOMS.keys()
