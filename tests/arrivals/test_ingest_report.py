"""What an ingest says of what it could not ingest: every cause, with how many rows have it."""

from arrivals.ingest_report import MOST_CAUSES, Problems
from arrivals.states import State


def test_many_rows_of_one_cause_hide_no_other_cause():
    problems = Problems()
    for number in range(200):
        problems.add(State.WAITING, f"raw:w{number}", "waits for its dimensions")
        problems.add(State.QUARANTINED, f"raw:a{number}", f"/data/{number}.fits: has {number} bytes")
    for number in range(5):
        problems.add(State.QUARANTINED, f"raw:b{number}", "is of LATISS")

    assert [(problem.state, problem.rows, problem.did) for problem in problems.all()] == [
        (State.WAITING, 200, "raw:w0"),
        (State.QUARANTINED, 200, "raw:a0"),
        (State.QUARANTINED, 5, "raw:b0"),
    ]
    assert str(problems.all()[-1]) == "quarantined raw:b0 and 4 more like it: is of LATISS"


def test_causes_beyond_the_most_are_counted_together():
    problems = Problems()
    for number in range(MOST_CAUSES + 3):
        problems.add(State.QUARANTINED, f"raw:{number}", f"cause {'x' * number}")

    *_, last = problems.all()

    assert len(problems.all()) == MOST_CAUSES + 1
    assert (last.rows, last.did) == (3, f"raw:{MOST_CAUSES}")
    assert last.reason.startswith("other causes, such as: cause xxx")
