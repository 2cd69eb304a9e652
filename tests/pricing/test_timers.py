"""The timers against a sorted list, through more steps than fit into one piece."""

from __future__ import annotations

from random import Random

from pricing.timers import FAR, StepTimers, Timers, key_of, timer_of


def test_timers_are_those_of_a_sorted_list_through_many_steps():
    rnd = Random(3)
    timers, naive, version, now = Timers(), [], 0, 10_000
    for _ in range(3_000):
        step = StepTimers(timers)
        for _ in range(rnd.randrange(12)):
            version += 1
            timer = now + rnd.choice((30_000, 30_000, rnd.randrange(-5_000, 60_000))), version
            step.add(timer)
            naive = sorted([*naive, timer])
            now += rnd.randrange(300)
            assert step.due_ms == naive[0][0]
            while step.due_ms <= now:
                assert step.take() == naive.pop(0)
        timers.apply(step.change())
        assert len(timers) == len(naive)
        assert timers.at(0) == (naive[0] if naive else FAR)
    assert [timers.at(place) for place in range(len(timers))] == naive
    assert version > 15_000, "what has resolved was thrown away, more than once"


def test_a_step_that_never_happened_leaves_the_timers_as_they_are():
    timers = Timers([(5, 1), (7, 2)])
    step = StepTimers(timers)
    step.add((6, 3))
    assert [step.take(), step.take()] == [(5, 1), (6, 3)]
    assert [timers.at(0), timers.at(1), timers.at(2)] == [(5, 1), (7, 2), FAR]


def test_keys_are_in_the_order_of_their_timers():
    timers = [(0, 1), (0, 256), (255, 1), (256, 0), (1_572_566_400_000, 9), (1_572_566_400_000, 10)]
    keys = [key_of(timer) for timer in timers]
    assert keys == sorted(keys)
    assert [timer_of(key) for key in keys] == timers
