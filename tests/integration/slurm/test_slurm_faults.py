"""What a submission has to outlive, each once: the soak's trials on one site of real servers.

How often it does, `make soak NAME=launchers` tells.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from benchmarks.soak.launcher_faults import FAULTS, Fault, try_fault
from benchmarks.soak.launcher_site import LauncherSite
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800), PROMISES]

PATIENCE_S = 900.0
"""How long anything may take that has to happen by itself, on a slow machine."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> LauncherSite:
    return LauncherSite(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def instance(site) -> Iterator[dg.DagsterInstance]:
    with site.running() as started:
        yield started


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_there_is_one_submission_an_honest_end_and_nothing_left_after(
    fault: Fault, site: LauncherSite, instance: dg.DagsterInstance, request: pytest.FixtureRequest
) -> None:
    # Tried again, it must not find what it submitted before.
    name = f"{fault.name.replace(' ', '-').lower()}-{getattr(request.node, 'execution_count', 1)}"

    done = try_fault(site, instance, fault, name, name, PATIENCE_S)

    if done.broken:
        site.make_whole(instance)
    assert not done.broken, done.what
