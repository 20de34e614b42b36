"""What several workers know together: each test maps one file more than once, as they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import IO

import pytest

from router.errors import PolicyError
from router.routing.budget import DAY_SECONDS, DailyBudget
from router.routing.conversations import Conversations
from router.routing.state.machine import ROWS, SETS, WAYS, MachineState, create, let_go


class Clock:
    now = 20_000.0 * DAY_SECONDS

    def __call__(self) -> float:
        return self.now


def known(file: IO[bytes]) -> IO[bytes]:
    MachineState(file.fileno()).know_spending()
    return file


@pytest.fixture
def file(tmp_path: Path) -> IO[bytes]:
    return known(create(tmp_path, 3))


def workers(file: IO[bytes], clock: Callable[[], float] = Clock()) -> list[MachineState]:  # noqa: B008
    return [MachineState(file.fileno(), slot, clock) for slot in range(3)]


def test_an_escalation_seen_by_one_worker_is_known_to_all(file: IO[bytes]) -> None:
    one, other, _ = (Conversations("default", state, 3600) for state in workers(file))
    one.remember("a", escalated=True, cached_share=0.5)
    assert other.escalated("a")
    other.remember("a", escalated=False, cached_share=0.25)
    assert one.escalated("a")
    assert one.cached_share("a") == pytest.approx(0.25, abs=1e-6)
    assert (one.escalated("b"), one.cached_share("b")) == (False, 0.0)


def test_policies_do_not_know_each_others_conversations() -> None:
    state = MachineState()
    Conversations("one", state, 3600).remember("a", escalated=True)
    assert not Conversations("two", state, 3600).escalated("a")


def test_a_share_of_tokens_gives_the_same_tokens_again() -> None:
    conversations = Conversations("default", MachineState(), 3600)
    for tokens in (3, 100, 1000, 7777, 131_072):
        for cached in (tokens, tokens - 1, tokens // 3, 1, 0):
            conversations.remember("a", cached_share=cached / tokens)
            assert int(tokens * conversations.cached_share("a")) == cached


def test_the_longest_unused_are_forgotten_first() -> None:
    clock = Clock()
    conversations = Conversations("default", MachineState(clock=clock), 86_400)
    names = [str(n) for n in range(2 * SETS * WAYS)]
    conversations.remember("kept", escalated=True)
    for n, name in enumerate(names):
        if n % 1000 == 0:
            clock.now += 1
            conversations.remember("kept")
        conversations.remember(name, escalated=True)
    known = [conversations.escalated(name) for name in names]
    assert conversations.escalated("kept")
    assert all(known[-1000:])
    assert sum(known) > 0.9 * SETS * WAYS
    assert sum(known[: len(names) // 4]) < 0.02 * len(names)


def test_workers_spend_one_budget(file: IO[bytes]) -> None:
    clock = Clock()
    one, other, third = (
        DailyBudget(Decimal(1), state.account("p", "served"), clock=clock) for state in workers(file, clock)
    )
    ones, others = one.reserve(Decimal("0.4")), other.reserve(Decimal("0.6"))
    assert ones and others and third.reserve(Decimal("0.000000001")) is None
    ones.settle(Decimal("0.000000123"))
    others.settle(Decimal("0.5"))
    assert (third.spent_usd, third.reserved_usd) == (Decimal("0.500000123"), 0)
    clock.now += DAY_SECONDS
    assert third.spent_usd == 0
    one.book(Decimal("0.25"))
    assert third.spent_usd == Decimal("0.25")


def test_who_takes_over_a_slot_keeps_what_was_spent_and_drops_what_was_only_held(file: IO[bytes]) -> None:
    clock = Clock()
    died, other, _ = workers(file, clock)
    before = DailyBudget(Decimal(1), died.account("p"), clock=clock)
    before.book(Decimal("0.3"))
    before.reserve(Decimal("0.2"))
    seen = DailyBudget(Decimal(1), other.account("p"), clock=clock)
    seen.reserve(Decimal("0.000000007"))
    assert seen.reserved_usd == Decimal("0.200000007")
    after = DailyBudget(Decimal(1), MachineState(file.fileno(), 0, clock).account("p"), clock=clock)
    after.book(Decimal("0.1"))
    assert (seen.spent_usd, seen.reserved_usd) == (Decimal("0.4"), Decimal("0.000000007"))
    let_go(file.fileno(), 1)
    assert (seen.spent_usd, seen.reserved_usd) == (Decimal("0.4"), 0), "its successor may be in another slot"


def test_what_was_spent_before_the_start_counts_once_and_that_day_only(file: IO[bytes]) -> None:
    clock = Clock()
    one, other, _ = (DailyBudget(Decimal(1), state.account("p"), clock=clock) for state in workers(file, clock))
    for _again in range(2):
        one.spent_before(clock.now, Decimal("0.5"))
    other.book(Decimal("0.1"))
    assert one.spent_usd == other.spent_usd == Decimal("0.6")
    clock.now += DAY_SECONDS
    assert one.spent_usd == 0


@pytest.mark.parametrize("leaps", [[1], [40], [40, 80, 400], [1, 3, 4, 30_000]])
def test_a_clock_that_leaps_ahead_and_back_finds_its_day_again_and_spends_no_other(
    file: IO[bytes], leaps: list[int]
) -> None:
    clock = Clock()
    one, other, third = (DailyBudget(Decimal(1), state.account("p"), clock=clock) for state in workers(file, clock))
    one.spent_before(clock.now, Decimal("0.25"))
    other.book(Decimal("0.25"))
    began = clock.now
    for leap in leaps:
        clock.now = began + leap * DAY_SECONDS
        one.book(Decimal("0.05"))
        third.book(Decimal("0.01"))
    clock.now = began
    spent = Decimal("0.5") + len(leaps) * Decimal("0.06")
    assert [b.spent_usd for b in (other, one, third)] == [spent] * 3
    rest = one.reserve(1 - spent)
    assert rest and third.reserve(Decimal("0.01")) is None
    rest.settle(Decimal(0))
    other.book(Decimal("0.01"))
    for leap in sorted({2, *leaps} - {1}):
        clock.now = began + leap * DAY_SECONDS
        assert [b.spent_usd for b in (other, one, third)] == [0, 0, 0], "that day has come, and nothing was spent on it"
    clock.now = began + 50_000 * DAY_SECONDS
    one.book(Decimal(2))
    assert other.exhausted and other.reserve(Decimal("0.1")) is None
    clock.now += DAY_SECONDS
    assert other.reserve(Decimal("0.1"))


def test_accounts_have_their_own_money_until_there_are_too_many() -> None:
    state = MachineState()
    accounts = [state.account("policy", str(n)) for n in range(ROWS)]
    for n, account in enumerate(accounts):
        account.settle(1, 0, n)
    assert [account.spent(1) for account in accounts] == list(range(ROWS))
    assert state.account("policy", "7").spent(1) == 7
    with pytest.raises(PolicyError, match="budgets"):
        state.account("one too many")


def test_nothing_is_held_before_it_is_known_what_was_spent_before(tmp_path: Path) -> None:
    with create(tmp_path, 2) as file:
        one, other = (MachineState(file.fileno(), slot) for slot in range(2))
        budget = DailyBudget(Decimal(1), other.account("p"))
        assert not one.knows_spending and budget.reserve(Decimal("0.1")) is None
        budget.spent_before(20_000.0 * DAY_SECONDS, Decimal(0))
        one.know_spending()
        assert other.knows_spending and budget.reserve(Decimal("0.1")) is not None


HAMMER = """
import sys
from router.routing.conversations import Conversations
from router.routing.state.machine import MachineState

state = MachineState(int(sys.argv[1]), int(sys.argv[2]))
account, conversations = state.account("p"), Conversations("p", state, 3600)
for n in range(20_000):
    if account.reserve(1, 3, 30_000 + 3):
        account.settle(1, 3, 1)
    conversations.remember(f"{sys.argv[2]}-{n % 100}", escalated=True, cached_share=n % 100 / 100)
    conversations.remember("common", escalated=n == 10_000, cached_share=0.5)
"""


def test_processes_that_write_at_once_lose_and_invent_nothing(file: IO[bytes]) -> None:
    number = file.fileno()
    both = [
        subprocess.Popen([sys.executable, "-c", HAMMER, str(number), slot], pass_fds=[number]) for slot in ("0", "1")
    ]
    assert [process.wait() for process in both] == [0, 0]
    state = MachineState(number, 2)
    assert (state.account("p").spent(1), state.account("p").reserved()) == (30_003, 0)
    conversations = Conversations("p", state, 3600)
    assert conversations.escalated("common")
    for slot in "01":
        for n in range(100):
            name = f"{slot}-{n}"
            assert conversations.escalated(name)
            assert conversations.cached_share(name) == pytest.approx(n / 100, abs=1e-6)
