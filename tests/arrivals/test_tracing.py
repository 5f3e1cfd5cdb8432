"""Which messages' datasets aren't in the Butler any more; what can't be told is believed to be there."""

from dataclasses import replace

import pytest

from arrivals.states import State
from arrivals.tracing import removed
from drp_tasks.instrument import SimCam
from simulator.messages import FileKind
from tests.arrivals.delivered import altered, announced, of_kind


@pytest.fixture
def gone(site):
    """The DIDs of all ingested messages whose datasets were removed."""

    def ask() -> set[str]:
        rows = site.ledger.find(state=State.INGESTED)
        row_ids = removed(site.butler, SimCam(), rows)
        return {row.name for row in rows if row.row_id in row_ids}

    return ask


def test_a_raw_is_gone_by_itself_and_a_zip_once_nothing_of_its_exposure_is_left(site, delivery, gone):
    raw, zipped = of_kind(delivery, FileKind.RAW)[0], of_kind(delivery, FileKind.ZIP)[0]
    site.receive(announced(delivery.files))
    site.ingest()
    assert gone() == set()

    site.remove_raws(exposure=site.row(raw).exposure, detector=site.row(raw).detector)
    site.remove_raws(exposure=site.row(zipped).exposure, detector=0)
    assert gone() == {raw.name}

    site.remove_raws(exposure=site.row(zipped).exposure, detector=1)
    assert gone() == {raw.name, zipped.name}


def test_a_zip_whose_name_tells_an_exposure_that_nobody_knows_is_believed_to_be_there(site, delivery):
    zipped = altered(
        delivery, of_kind(delivery, FileKind.ZIP)[0], delivery.rucio_folder, name="x/SC_C_20260101_000001.zip"
    )
    site.receive(announced([*of_kind(delivery, FileKind.DIMENSIONS), zipped]))
    site.ingest()
    rows = [replace(row, exposure=2026010100001) for row in site.ledger.find(name=zipped.name)]

    assert [row.state for row in rows] == [State.INGESTED]
    assert removed(site.butler, SimCam(), rows) == frozenset()
