"""The code locations load wherever the code is: no Kafka, no Butler, no database, no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drp_assets import definitions

TOP = Path(__file__).parents[2]
LOCATIONS = [
    entry["python_module"]["attribute"] for entry in yaml.safe_load((TOP / "workspace.yaml").read_text())["load_from"]
]
LOAD = """
import sys

def forbid(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "sqlite3.connect"}:
        raise AssertionError(f"loading did {event} {arguments}")

sys.addaudithook(forbid)

# These speak to their services from C, where no audit hook hears of it.
import confluent_kafka, psycopg

def refuse(*arguments, **_):
    raise AssertionError(f"loading opened a connection: {arguments}")

for module, name in ((confluent_kafka, "Consumer"), (confluent_kafka, "Producer"), (psycopg.Connection, "connect")):
    setattr(module, name, refuse)

import dagster
from drp_assets import definitions

location = getattr(definitions, sys.argv[1])
dagster.Definitions.validate_loadable(location)
print(len(list(location.resolve_all_asset_specs())))
print(*sorted({"lsst.daf.butler", "lsst.pipe.base", "matplotlib", "astropy"} & set(sys.modules)))
"""


def load(location: str, state: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DRP_STATE": str(state),
        "DRP_REPORTS_URL": "http://127.0.0.1:1",
        "DRP_SITE": str(TOP / "deploy" / "sites" / "laptop.yaml"),
    }
    return subprocess.run(
        [sys.executable, "-c", LOAD, location], cwd=TOP, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_location_loads_without_touching_any_service(location, tmp_path):
    loaded = load(location, tmp_path)

    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout.splitlines()[0]) >= 2
    assert {path.name for path in tmp_path.iterdir()} <= {"plans"}


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_location_whose_plan_is_known_loads_without_the_middleware_and_what_draws(location, tmp_path):
    load(location, tmp_path)

    assert load(location, tmp_path).stdout.splitlines()[1] == ""


def test_a_location_that_no_release_describes_is_an_error():
    with pytest.raises(AttributeError, match="no location 'nowhere'"):
        definitions.nowhere  # noqa: B018
