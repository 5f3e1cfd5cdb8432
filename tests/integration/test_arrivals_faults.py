"""Arrivals lose nothing, whatever is killed: the soak in small, each victim once, on real servers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak.chaos import SHORT_PLAN
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, pytest.mark.slow, PROMISES]

TOP = Path(__file__).parents[2]
MESSAGES = 20_000
TIMEOUT_S = 2_700
"""Far more than it takes, for machines that are busy with other tests."""

VICTIMS = {"drain", "code server", "Dagster's daemon", "run worker", "broker", "PostgreSQL", "network"}


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_twenty_thousand_messages_arrive_whole_while_everything_is_killed_in_turn(tmp_path):
    size = ["--messages", str(MESSAGES), "--rounds", "0"]
    folders = ["--folder", str(tmp_path / "soak"), "--results", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak.arrivals", *size, *folders],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert {turn.victim for turn in SHORT_PLAN} == VICTIMS
    figures = {
        result["name"]: result for result in json.loads((tmp_path / "soak-arrivals.json").read_text())["results"]
    }
    assert figures["messages"]["value"] == MESSAGES
    assert figures["incidents"]["value"] == len(VICTIMS)
    promises = [result for name, result in figures.items() if name.startswith("not so: ")]
    assert promises
    assert all(result["met"] for result in promises)
