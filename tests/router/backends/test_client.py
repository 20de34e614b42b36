"""Asking one backend: again in another spelling, again after a moment, or not again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from router.backends.base import Backend, WaitingTime
from router.backends.breakers import CircuitBreaker, ProcessBreakers, ProcessRests
from router.backends.client import BackendClient, Retries, Wires
from router.contracts.decision import Tier
from router.errors import CircuitOpen, UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamUnusable
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, Script, served

BODY: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": "hi"}]}
ONCE = Retries({Tier.TEACHER: 0}, {Tier.TEACHER: 3.0})
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    found = FakeUpstream("big")
    with served(found) as found.url:
        yield found


@pytest.fixture
async def tiers(upstream: FakeUpstream) -> AsyncIterator[BackendClient]:
    upstream.always()
    upstream.seen.clear()
    found = BackendClient(Wires(), ProcessBreakers(), ProcessRests())
    yield found
    await found.close()


@pytest.fixture
def teacher(upstream: FakeUpstream) -> Backend:
    return Backend(Tier.TEACHER, "big", "big", f"{upstream.url}/v1", DEADLINE_SECONDS, key="sk-secret")


async def test_clients_over_one_state_agree_on_who_fails_and_who_rests(
    upstream: FakeUpstream, teacher: Backend
) -> None:
    breakers, rests = ProcessBreakers(partial(CircuitBreaker, least=1)), ProcessRests()
    one, other = (BackendClient(Wires(), breakers, rests, ONCE) for _ in range(2))
    upstream.always(status=429, error={"message": "slowly"}, headers={"retry-after": "40"})
    for client, asked in ((one, 1), (other, 1)):
        with pytest.raises(UpstreamRateLimited):
            await whole(client, teacher)
        assert len(upstream.seen) == asked
    failing = replace(teacher, model="failing")
    upstream.always(status=500, error={"message": "down"})
    with pytest.raises(UpstreamError):
        await whole(one, failing)
    assert other.is_open(failing)
    await one.close()
    await other.close()


async def whole(tiers: BackendClient, backend: Backend, wished: dict[str, Any] | None = None, **more: Any) -> int:
    return (await tiers.whole(backend, BODY | more, WaitingTime(), wished=wished or {})).status


async def begun(tiers: BackendClient, backend: Backend, **more: Any) -> bytes:
    events = await tiers.open(backend, BODY | USAGE | more, WaitingTime())
    first = await events.read()
    await events.close()
    return first


def refusing(field: str, status: int = 400) -> Callable[[dict[str, Any]], Script]:
    error = {"message": f"'{field}' is not supported", "type": "invalid_request_error", "param": field}
    return lambda body: Script(status=status, error=error) if field in body else Script()


async def test_a_backend_that_refuses_what_was_added_is_asked_without_from_then_on(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend
) -> None:
    upstream.answer = refusing("stream_options")
    for asked in (2, 3):
        assert await begun(tiers, teacher)
        assert len(upstream.seen) == asked
    assert "stream_options" not in upstream.seen[-1].body


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 501])
async def test_whatever_status_it_gives_it(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend, status: int
) -> None:
    upstream.answer = refusing("logprobs", status)
    for asked in (2, 3):
        assert await whole(tiers, teacher, {"logprobs": True}) == 200
        assert len(upstream.seen) == asked


@pytest.mark.parametrize(
    ("sent", "known"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
async def test_a_limit_reaches_the_backend_by_the_name_that_it_knows(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend, sent: str, known: str
) -> None:
    upstream.answer = refusing(sent)
    for _ in range(2):
        assert await whole(tiers, teacher, **{sent: 7}) == 200
        assert upstream.seen[-1].body[known] == 7
    assert len(upstream.seen) == 3


async def test_a_wrong_request_teaches_nothing(upstream: FakeUpstream, tiers: BackendClient, teacher: Backend) -> None:
    error = {"message": "user 'stream_options max_tokens logprobs unknown' is not supported"}
    upstream.always(status=400, error=error)
    with pytest.raises(UpstreamRefused):
        await begun(tiers, teacher, max_tokens=5)
    upstream.always()
    upstream.seen.clear()
    await begun(tiers, teacher, max_tokens=5)
    assert upstream.seen[0].body["stream_options"] and upstream.seen[0].body["max_tokens"] == 5


async def test_a_request_that_is_tried_three_times_fails_once(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend
) -> None:
    upstream.always(status=500)
    for _ in range(9):
        with pytest.raises(UpstreamError, match="answered 500"):
            await whole(tiers, teacher)
    assert len(upstream.seen) == 27
    assert not tiers.is_open(teacher)
    with pytest.raises(UpstreamError, match="answered 500"):
        await whole(tiers, teacher)
    with pytest.raises(CircuitOpen):
        await whole(tiers, teacher)


@pytest.mark.parametrize("status", [401, 402, 404, 410, 498])
async def test_what_no_moment_mends_is_asked_once(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend, status: int
) -> None:
    upstream.always(status=status)
    with pytest.raises(UpstreamUnusable):
        await whole(tiers, teacher)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_what_a_moment_may_mend_is_asked_again(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend, status: int
) -> None:
    scripts = iter([Script(status=status, headers={"retry-after-ms": "20"}), Script()])
    upstream.answer = lambda body: next(scripts)
    waited = WaitingTime()
    assert (await tiers.whole(teacher, BODY, waited)).status == 200
    assert waited.seconds >= 0.02


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("said", ["header", "words"])
async def test_a_backend_that_asks_for_a_long_rest_gets_it(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend, status: int, said: str
) -> None:
    headers = {"retry-after": "37"} if said == "header" else {}
    upstream.always(status=status, headers=headers, error={"message": "busy. Please try again in 36.5s."})
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            await whole(tiers, teacher)
        assert caught.value.status == status
        assert 30 <= int(caught.value.retry_after or 0) <= 37
    assert len(upstream.seen) == 1
    assert not tiers.is_open(teacher)


async def test_anothers_account_need_not_rest(upstream: FakeUpstream, tiers: BackendClient, teacher: Backend) -> None:
    upstream.always(status=429, headers={"retry-after": "37"})
    with pytest.raises(UpstreamRateLimited):
        await whole(tiers, teacher)
    upstream.always()
    other = Backend(Tier.TEACHER, "big", "big", teacher.url, DEADLINE_SECONDS, key="sk-another")
    assert await whole(tiers, other) == 200


WEEKS = [{"retry-after": "1e9"}, {"retry-after": "604800"}, {"retry-after-ms": "86400000"}, {}]


@pytest.mark.parametrize("said", WEEKS)
async def test_who_is_told_to_wait_for_days_shuts_nobody_out_for_more_than_a_minute(
    upstream: FakeUpstream, teacher: Backend, said: dict[str, str]
) -> None:
    now = 1000.0
    tiers = BackendClient(Wires(), ProcessBreakers(), ProcessRests(clock=lambda: now))
    upstream.seen.clear()
    upstream.always(status=429, headers=said, error={"message": "Please try again in 72h0m0s."})
    for later, asked in ((0.0, 1), (59.0, 1), (1.5, 2)):
        now += later
        with pytest.raises(UpstreamRateLimited) as caught:
            await whole(tiers, teacher)
        assert len(upstream.seen) == asked
        assert asked == 2 or later == 0 or int(caught.value.retry_after or 0) <= 60
    upstream.always()
    now += 61
    assert await whole(tiers, teacher) == 200
    await tiers.close()


async def test_an_account_without_quota_is_neither_waited_for_nor_left_alone(
    upstream: FakeUpstream, tiers: BackendClient, teacher: Backend
) -> None:
    upstream.always(status=429, headers={"retry-after": "37"}, error={"message": "no", "code": "insufficient_quota"})
    for asked in (1, 2):
        with pytest.raises(UpstreamUnusable) as caught:
            await whole(tiers, teacher)
        assert (caught.value.status, caught.value.retry_after) == (429, "37")
        assert len(upstream.seen) == asked
