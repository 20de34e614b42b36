"""Places in conversations: who came by, who goes on, what is forgotten."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from router.routing.state.machine import MachineState, create
from router.routing.state.trails import BRANCHES, MEMORY_SECONDS, SETS, WAIT_SECONDS, WAYS


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def test_each_that_reached_a_place_goes_on_from_it_once_and_in_their_order() -> None:
    trails = MachineState().trails
    for conversation in (1, 2, 3):
        trails.reached(77, conversation)
    assert [trails.gone_on(77) for _ in range(3)] == [1, 2, 3]
    assert trails.gone_on(77) == 3
    assert trails.gone_on(78) is None


def test_one_that_goes_on_again_branches_until_it_is_a_beginning_of_many() -> None:
    trails = MachineState().trails
    trails.reached(77, 1)
    assert [trails.gone_on(77) for _ in range(BRANCHES + 2)] == [1] * BRANCHES + [0, 0]


def test_whoever_waited_for_too_long_is_passed_over_where_others_wait() -> None:
    clock = Clock()
    trails = MachineState(clock=clock).trails
    trails.reached(77, 1)
    trails.reached(77, 2)
    clock.now += WAIT_SECONDS + 1
    for conversation in (3, 4):
        trails.reached(77, conversation)
    assert [trails.gone_on(77) for _ in range(3)] == [3, 4, 4]
    trails.reached(78, 1)
    clock.now += WAIT_SECONDS + 1
    assert trails.gone_on(78) == 1, "nobody else can be meant"


def test_whoever_comes_later_is_not_mistaken_for_one_that_went_on_before() -> None:
    trails = MachineState().trails
    trails.reached(77, 1)
    assert trails.gone_on(77) == 1
    trails.reached(77, 2)
    assert [trails.gone_on(77), trails.gone_on(77)] == [2, 2]


def test_only_one_is_known_by_where_it_alone_came_by() -> None:
    trails = MachineState().trails
    trails.seen(5, 1)
    trails.seen(5, 1)
    assert trails.only(5) == 1
    trails.seen(5, 2)
    trails.seen(5, 2)
    assert trails.only(5) is None
    trails.seen(6, 1)
    assert [trails.only(6, 2) for _ in range(3)] == [1, 1, None]


def test_a_place_is_forgotten_after_a_day() -> None:
    clock = Clock()
    trails = MachineState(clock=clock).trails
    trails.reached(5, 1)
    clock.now += MEMORY_SECONDS + 1
    assert (trails.gone_on(5), trails.only(5)) == (None, None)
    trails.seen(5, 2)
    assert trails.only(5) == 2


def test_whoever_fills_the_memory_takes_no_more_of_it_and_loses_the_oldest_first() -> None:
    clock, rng = Clock(), random.Random(1)
    trails = MachineState(clock=clock).trails
    places = [rng.getrandbits(63) for _ in range(SETS * WAYS // 4)]
    for n, place in enumerate(places):
        clock.now += n % 1000 == 0
        trails.seen(place, n + 1)
    known = sum(trails.only(place) == n + 1 for n, place in enumerate(places))
    assert known > 0.99 * len(places)
    for n in range(WAYS + 1):  # all in one set
        clock.now += 1
        trails.seen(SETS * (n + 1) + 9, n + 1)
    assert trails.only(SETS + 9) is None and trails.only(SETS * (WAYS + 1) + 9) == WAYS + 1


WORKER = """
import sys
from router.routing.state.machine import MachineState
state = MachineState(int(sys.argv[1]), int(sys.argv[2]))
for n in range(4000):
    state.trails.reached(777, int(sys.argv[2]) * 100_000 + n + 1)
    state.trails.seen(n % 50, int(sys.argv[2]))
    state.trails.gone_on(n % 50 + 100)
"""


def test_workers_that_write_at_once_mix_nothing_up(tmp_path: Path) -> None:
    with create(tmp_path, 4) as file:
        running = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(file.fileno()), str(slot)], pass_fds=[file.fileno()])
            for slot in (1, 2, 3)
        ]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        trails = MachineState(file.fileno(), 0).trails
        assert all(trails.only(n) is None for n in range(50)), "three came by"
        went = [trails.gone_on(777) for _ in range(12_000)]
        assert len(set(went)) == 12_000, "each goes on once"
        assert {n // 100_000 for n in went if n} == {1, 2, 3}
