"""What a quantum says of its failure, as it is kept."""

from types import SimpleNamespace

import pytest
from lsst.pipe.base import QuantumAttemptStatus

from launchers.job_ends import JobEnd
from launchers.judging import _cause


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("the first line\nand the rest", "the first line"),
        ("", ""),
        # As a header's cards are; PostgreSQL takes no text with it.
        ("bad card 'ABC\0\0'", "bad card 'ABC��'"),
    ],
)
def test_a_messages_first_line_is_kept_as_any_database_takes_it(message: str, kept: str) -> None:
    exception = SimpleNamespace(type_name="E", message=message)
    quantum = {"exception": exception, "status": QuantumAttemptStatus.FAILED}
    assert _cause(quantum, "", JobEnd()) == ("E", kept)
