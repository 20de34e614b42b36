"""Circuit breakers, rests and backoff."""

from __future__ import annotations

import pytest

from router.backends.breakers import OWNERS, CircuitBreaker, ProcessBreakers, ProcessRests, backoff_seconds
from router.errors import (
    CircuitOpen,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(
    breaker: CircuitBreaker,
    kind: type[UpstreamError] = UpstreamError,
    times: int = 1,
    owner: str | None = None,
) -> None:
    for _ in range(times):
        with pytest.raises(kind, match="down"), breaker.guard("big", owner):
            raise kind("down")


def answer(breaker: CircuitBreaker, times: int = 1, owner: str | None = None) -> None:
    for _ in range(times):
        with breaker.guard("big", owner):
            pass


def refuse(breaker: CircuitBreaker) -> None:
    with pytest.raises(UpstreamRefused), breaker.guard("big"):
        raise UpstreamRefused("no", reply_status=400, reply_body=b"")


def closed(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(least=10, share=0.5, window_seconds=60, open_seconds=5, clock=clock)


def broken(clock: Clock) -> CircuitBreaker:
    breaker = closed(clock)
    fail(breaker, times=10)
    return breaker


def test_a_circuit_opens_where_most_requests_fail() -> None:
    breaker = closed(Clock())
    fail(breaker, times=9)
    assert not breaker.is_open, "too few to tell"
    fail(breaker)
    assert breaker.is_open
    with pytest.raises(CircuitOpen, match="big"), breaker.guard("big"):
        pytest.fail("an open circuit lets nothing through")


def test_failures_of_some_among_the_answers_of_others_open_nothing() -> None:
    breaker = closed(Clock())
    for _ in range(50):
        fail(breaker, times=2)
        answer(breaker, times=3)
    assert not breaker.is_open


def test_one_clients_failures_do_not_shut_out_another_who_is_answered() -> None:
    breaker = closed(Clock())
    for _ in range(30):
        fail(breaker, times=5, owner="poisons")
        answer(breaker, owner="asks")
        if breaker.is_open:  # before the other had asked for the first time
            pytest.fail("the other is answered")


def test_who_has_not_failed_yet_is_let_through_at_once() -> None:
    breaker = closed(Clock())
    fail(breaker, times=10, owner="poisons")
    with pytest.raises(CircuitOpen):
        answer(breaker, owner="poisons")
    answer(breaker, owner="asks")
    assert not breaker.is_open


def test_a_backend_that_is_down_for_everybody_is_left_alone() -> None:
    breaker = closed(Clock())
    for n in range(10):
        fail(breaker, owner=f"client {n % 3}")
    assert breaker.is_open
    fail(breaker, owner="another")
    for owner in ("another", "client 1", None):
        with pytest.raises(CircuitOpen):
            answer(breaker, owner=owner)


def test_any_number_of_clients_is_counted_in_bounded_memory() -> None:
    breaker = closed(Clock())
    for n in range(5_000):
        answer(breaker, owner=str(n))
    assert len(breaker._now) <= OWNERS + 1
    assert breaker.successes == 5_000


def test_what_cannot_be_reached_or_hangs_is_found_out_sooner() -> None:
    for kind in (UpstreamUnreachable, UpstreamTimeout):
        breaker = closed(Clock())
        fail(breaker, kind, times=4)
        assert not breaker.is_open
        fail(breaker, kind)
        assert breaker.is_open


def test_old_failures_are_forgotten() -> None:
    clock = Clock()
    breaker = closed(clock)
    for _ in range(10):
        fail(breaker, times=4)
        clock.now += 120
    assert not breaker.is_open


def test_refusals_and_rate_limits_are_no_failures_and_hide_none() -> None:
    breaker = closed(Clock())
    for _ in range(100):
        refuse(breaker)
        with pytest.raises(UpstreamRateLimited), breaker.guard("big"):
            raise UpstreamRateLimited("slow down")
    assert not breaker.is_open
    for _ in range(10):
        refuse(breaker)
        fail(breaker)
    assert breaker.is_open


def test_an_answer_that_breaks_off_was_no_success() -> None:
    breaker = closed(Clock())
    answer(breaker, times=10)
    for _ in range(10):
        breaker.failed()
    assert (breaker.is_open, breaker.successes) == (True, 0)


def test_half_open_lets_one_through_and_its_success_closes() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 5
    with breaker.guard("big"):
        assert breaker.is_open, "the one is under way"
        with pytest.raises(CircuitOpen), breaker.guard("big"):
            pytest.fail("only one")
    assert not breaker.is_open


def test_half_open_failure_opens_anew() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 5
    fail(breaker)
    assert breaker.is_open
    clock.now += 5
    assert not breaker.is_open


def test_a_refusal_shows_that_the_backend_lives() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 5
    refuse(breaker)
    assert not breaker.is_open
    fail(breaker)
    assert not breaker.is_open, "what was before is forgotten"


def test_a_client_that_leaves_during_the_probe_proves_nothing() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 5
    with pytest.raises(KeyboardInterrupt), breaker.guard("big"):
        raise KeyboardInterrupt
    assert not breaker.is_open, "the next one probes"


def test_each_backend_has_its_own_circuit() -> None:
    breakers = ProcessBreakers()
    assert breakers.of("a") is breakers.of("a")
    assert breakers.of("a") is not breakers.of("b")


def test_a_backend_is_left_alone_for_as_long_as_it_asks() -> None:
    clock = Clock()
    rests = ProcessRests(longest_seconds=300, clock=clock)
    rests.check("big")
    rests.begin("big", UpstreamRateLimited("big is rate-limited", wait_seconds=37))
    clock.now += 0.5
    with pytest.raises(UpstreamRateLimited, match="big is rate-limited") as caught:
        rests.check("big")
    assert (caught.value.wait_seconds, caught.value.retry_after) == (36.5, "37")
    rests.check("another")
    clock.now += 36.5
    rests.check("big")


def test_but_not_for_ever() -> None:
    clock = Clock()
    rests = ProcessRests(longest_seconds=300, clock=clock)
    rests.begin("big", UpstreamError("busy", status=503, wait_seconds=86_400))
    clock.now += 299
    with pytest.raises(UpstreamError) as caught:
        rests.check("big")
    assert (caught.value.status, caught.value.retry_after) == (503, "1")
    clock.now += 1
    rests.check("big")


def test_backoff_grows_and_is_capped() -> None:
    assert all(0 <= backoff_seconds(n) <= min(2.0, 0.1 * 2**n) for n in range(20))
