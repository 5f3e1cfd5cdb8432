"""Messages and files of a real facility, from its announcement to the Butler."""

import json
from pathlib import Path

import pytest
from lsst.daf.butler import Butler, Config
from lsst.pipe.base import Instrument

from arrivals.ledger import Ledger
from arrivals.states import State
from resources.site import ArrivalSettings
from tests.arrivals.delivered import ReceivingSite

FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "hermes"

pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="a plain clone has no ../shared/fixtures")


class Hsc(Instrument):
    """The instrument of the messages, by name only: its raws are not among them."""

    @classmethod
    def getName(cls) -> str:
        return "HSC"

    def getRawFormatter(self, dataId):
        raise NotImplementedError

    def register(self, registry, *, update=False):
        raise NotImplementedError

    def read_observation(self, raw):
        raise NotImplementedError


@pytest.fixture
def site(tmp_path):
    repository = tmp_path / "repo"
    # afw reads this storage class at a facility; to ingest a file it takes any formatter that is installed.
    formatters = {"ExposureCatalog": "lsst.daf.butler.formatters.json.JsonFormatter"}
    Butler.makeRepo(str(repository), Config({"datastore": {"formatters": formatters}}))
    settings = {
        "topics": "^XRD.*",
        "instrument": f"{__name__}.Hsc",
        "paths": [{"announced": "root://xrd5:1098//rucio", "local": str(FIXTURES)}],
    }
    return ReceivingSite(
        Butler.from_config(str(repository), writeable=True),
        Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3"),
        ArrivalSettings.model_validate(settings),
    )


def message(name: str, **payload: object) -> bytes:
    value = json.loads((FIXTURES / f"{name}.json").read_text())
    value["payload"] |= payload
    return json.dumps(value).encode()


def test_dimensions_that_carry_another_files_checksum_are_quarantined(site):
    site.receive([message("dim_message")])
    site.ingest()

    [row] = site.ledger.find()
    assert row.state is State.QUARANTINED
    assert "has 50,682 bytes, but 14,912,640 were announced" in row.reason


def test_a_real_product_waits_for_its_visit_and_passes_every_check_when_that_has_come(site):
    site.receive([message("message330")])
    site.ingest()
    [row] = site.ledger.find()
    assert (row.state, row.waits_for) == (State.WAITING, "instrument=HSC")

    site.receive([message("dim_message", bytes=50682, **{"checksum-adler": None})])
    site.ingest()

    product, dimensions = site.ledger.find()
    assert dimensions.state is State.INGESTED
    assert (product.state, product.reason) == (State.INGESTED, "")
    assert site.count("visitSummary") == 1


def test_a_real_message_whose_file_is_missing_is_tried_again(site):
    site.receive([message("truncated")])
    site.ingest()

    [row] = site.ledger.find()
    assert row.state is State.WAITING
    assert "file is not there" in row.reason
