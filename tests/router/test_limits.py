"""Keys, circuit breakers and backoff."""

from __future__ import annotations

import pytest

from router.api.entrance import given_key
from router.errors import CircuitOpen, Unauthorized, UpstreamError, UpstreamRefused
from router.limits import Breakers, CircuitBreaker, ClientKeys, backoff_seconds


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: CircuitBreaker) -> None:
    with pytest.raises(UpstreamError, match="down"), breaker.guard("big"):
        raise UpstreamError("down")


def broken(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=5, open_seconds=5, clock=clock)
    for _ in range(5):
        fail(breaker)
    return breaker


def test_without_keys_everyone_may_ask() -> None:
    assert ClientKeys([]).check(None) == ClientKeys([]).check("any") == ""


@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_with_keys_only_they_may(key: str | None) -> None:
    keys = ClientKeys(["right", "other"])
    assert keys.check("right") == ClientKeys(["right"]).check("right")
    assert "right" not in keys.check("right") != keys.check("other")
    with pytest.raises(Unauthorized) as caught:
        keys.check(key)
    assert "right" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer sk-1"}, "sk-1"),
        ({b"authorization": b"bearer  sk-1 "}, "sk-1"),
        ({b"authorization": b"Basic sk-1"}, None),
        ({b"authorization": b"sk-1"}, None),
        ({b"x-api-key": b"sk-1"}, "sk-1"),
        ({}, None),
    ],
)
def test_a_key_comes_as_openais_or_anthropics_clients_send_it(headers: dict[bytes, bytes], key: str | None) -> None:
    assert given_key(headers) == key


def test_a_circuit_opens_after_five_failures_in_a_row() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=5, open_seconds=5, clock=clock)
    for _ in range(4):
        fail(breaker)
    with breaker.guard("big"):
        pass
    for _ in range(4):
        fail(breaker)
    assert not breaker.is_open
    fail(breaker)
    assert breaker.is_open
    with pytest.raises(CircuitOpen, match="big"), breaker.guard("big"):
        pytest.fail("an open circuit lets nothing through")


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
    with pytest.raises(UpstreamRefused), breaker.guard("big"):
        raise UpstreamRefused("no", reply_status=400, reply_body=b"")
    assert not breaker.is_open


def test_a_client_that_leaves_during_the_probe_proves_nothing() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 5
    with pytest.raises(KeyboardInterrupt), breaker.guard("big"):
        raise KeyboardInterrupt
    assert not breaker.is_open, "the next one probes"


def test_each_backend_has_its_own_circuit() -> None:
    breakers = Breakers()
    assert breakers.of("a") is breakers.of("a")
    assert breakers.of("a") is not breakers.of("b")


def test_backoff_grows_and_is_capped() -> None:
    assert all(0 <= backoff_seconds(n) <= min(2.0, 0.1 * 2**n) for n in range(20))
