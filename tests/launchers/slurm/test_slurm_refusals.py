from launchers.slurm.refusals import MOST, Refusals

LIMIT = "Slurm refuses: QOSMaxSubmitJobPerUserLimit; Job violates accounting/QOS policy (job submit limit, …)"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_refused_is_offered_less_and_less_often_and_then_given_up():
    clock = Clock()
    refusals = Refusals(15.0, clock)
    pauses = []

    while not refusals.note([3], "no", others_go_on=True):
        began = clock.now
        while not refusals.may_offer(3):
            clock.now += 1.0
        pauses.append(clock.now - began)

    assert pauses == [15.0, 30.0, 60.0, 120.0, 240.0]
    assert len(pauses) == MOST - 1
    assert refusals.trouble == ""


def test_a_limit_is_waited_for_as_long_as_others_may_make_room():
    refusals = Refusals(0.0)
    for _ in range(10 * MOST):
        assert refusals.note([3], LIMIT, others_go_on=True) == []

    given_up = [refusals.note([3], LIMIT, others_go_on=False) for _ in range(MOST)]

    assert given_up == [[]] * (MOST - 1) + [[3]]


def test_after_a_limit_nothing_is_offered_for_a_while():
    clock = Clock()
    refusals = Refusals(15.0, clock)
    refusals.note([3], "Slurm refuses: QOSMaxWallDurationPerJobLimit", others_go_on=True)
    assert refusals.may_offer(4)

    refusals.note([3], LIMIT, others_go_on=True)

    assert not refusals.may_offer(4)
    clock.now += 15.0
    assert refusals.may_offer(4)


def test_a_job_that_is_taken_after_all_is_trouble_no_more():
    refusals = Refusals(15.0)
    refusals.note([3, 4], "no", others_go_on=False)
    refusals.note([5], "never", others_go_on=False)
    assert refusals.trouble == "no; never"

    refusals.forget([3, 4])

    assert refusals.trouble == "never"
    assert [refusals.may_offer(position) for position in (3, 5)] == [True, False]
