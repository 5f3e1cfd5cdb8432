"""Files that nobody could foresee: whatever one does to a reader or to the Butler is its own row's trouble."""

import pytest

from arrivals.states import State
from simulator.messages import FileKind
from tests.arrivals.delivered import altered, announced, of_kind, receiving_site


@pytest.mark.parametrize(
    "card",
    [b"INSTRUME= 'SimCam", b"INSTRUME= 1.2.3", b"DAYOBS  = '20261"],
    ids=["open quote", "no number", "no day_obs"],
)
def test_a_raw_with_a_card_that_is_no_fits_is_refused_and_its_neighbour_goes_in(delivery, tmp_path, repository, card):
    site = receiving_site(tmp_path, repository, tmp_path / "rucio")
    raw, good = of_kind(delivery, FileKind.RAW)
    content = delivery.path(raw).read_bytes()
    start = content.index(card[:9])
    broken = content[:start] + card.ljust(80) + content[start + 80 :]
    bad = altered(delivery, raw, tmp_path / "rucio", broken)
    site.receive(announced([bad, altered(delivery, good, tmp_path / "rucio")]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert "the header" in site.row(bad).reason
