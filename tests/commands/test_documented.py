"""Every `drp` command that the documentation names is there, with its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands.main import ENTRIES

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
_LINE = re.compile(r"(?:`|^)drp ([a-z][^`\n#]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    for line in _LINE.findall(page.read_text(encoding="utf-8")):
        name, *words = line.split()
        assert name in ENTRIES, f"drp {line}"
        command = ENTRIES[name].load(name)
        for word in words:
            if hasattr(command, "commands") and re.fullmatch(r"[a-z]+", word):
                assert word in command.commands, f"drp {line}"
                command = command.commands[word]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        named = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", line))
        assert named <= known, f"drp {line}"
