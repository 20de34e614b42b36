"""Whatever a provider tells of its usage, on whichever surface it was asked, its bill is what is booked."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, served, world
from tests.router.wire.test_usage import PRICE, SHAPES

TURNS = [{"role": "user", "content": "hi"}]
SURFACES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": TURNS},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": TURNS, "max_tokens": 50},
}
TICK = Decimal("1e-6")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    provider = FakeUpstream("sold")
    with served(provider) as provider.url:
        teacher = {
            "model": "sold",
            "url": f"{provider.url}/v1",
            "api_key_env": "TEACHER_KEY",
            "usd_per_million": PRICE.model_dump(mode="json", exclude_defaults=True),
            "timeout_seconds": DEADLINE_SECONDS,
        }
        with world(tmp_path_factory.mktemp("bills"), teacher=teacher) as found:
            found.teacher = provider
            yield found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", SURFACES)
def test_the_true_bill_is_in_the_record(proxy: World, surface: str, stream: bool) -> None:
    wrong = {}
    for name, (usage, bill, beside) in SHAPES.items():
        proxy.teacher.always(text="hi", usage=usage, extra=dict(beside))
        body = {"model": "locum/teacher", "stream": stream, **SURFACES[surface]}
        answer = httpx.post(f"{proxy.url}/v1/{surface}", json=body, timeout=DEADLINE_SECONDS)
        assert answer.status_code == 200, (name, answer.text)
        record = proxy.record(answer.headers["x-locum-request-id"])
        # A policy that states a price believes no bill of nothing.
        due = 1100.0 if usage.get("cost") == 0 else bill
        booked = [float(a.cost_usd / TICK) for a in record.answers]
        if booked != [pytest.approx(due)] or record.answers[0].usage.estimated:
            wrong[name] = (booked, due, record.answers[0].usage)
    assert not wrong


ODD: dict[str, Any] = {
    "cached and thought": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 60},
    },
    "xai, thoughts beside the answer": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1160,
        "completion_tokens_details": {"reasoning_tokens": 60},
    },
    "more cached than read": {
        "prompt_tokens": 100,
        "completion_tokens": 100,
        "total_tokens": 200,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
    "anthropic's names": {"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 500},
    "a total alone": {"total_tokens": 5000},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "negative": {"prompt_tokens": -5, "completion_tokens": -7},
    "texts": {"prompt_tokens": "1000", "completion_tokens": "100"},
}


def told_in(surface: str, body: dict[str, Any]) -> tuple[int, int, int, int]:
    """(read, of that cached, written, thought) as a client is told them; Anthropic tells of no thoughts."""
    used = body["usage"]
    if surface == "messages":
        cached = used["cache_read_input_tokens"]
        return used["input_tokens"] + cached + used["cache_creation_input_tokens"], cached, used["output_tokens"], 0
    read, said = ("input", "output") if surface == "responses" else ("prompt", "completion")
    assert used["total_tokens"] == used[f"{read}_tokens"] + used[f"{said}_tokens"]
    cached = (used.get(f"{read}_tokens_details") or {}).get("cached_tokens", 0)
    thought = (used.get(f"{said}_tokens_details") or {}).get("reasoning_tokens", 0)
    return used[f"{read}_tokens"], cached, used[f"{said}_tokens"], thought


def last_usage(surface: str, events: str) -> dict[str, Any]:
    """What a stream ends with that has a usage."""
    chunks = [orjson.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    found = [chunk.get("response") or chunk for chunk in chunks]
    return next(chunk for chunk in reversed(found) if chunk.get("usage"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", SURFACES)
def test_clients_are_told_the_counts_that_are_billed(proxy: World, surface: str, stream: bool) -> None:
    wrong = {}
    for name, usage in ODD.items():
        proxy.teacher.always(text="card arrival", usage=usage)
        body = {"model": "locum/teacher", "stream": stream, **SURFACES[surface]}
        if stream and "completions" in surface:
            body["stream_options"] = {"include_usage": True}
        answer = httpx.post(f"{proxy.url}/v1/{surface}", json=body, timeout=DEADLINE_SECONDS)
        used = proxy.record(answer.headers["x-locum-request-id"]).answers[0].usage
        due = (
            used.input_tokens,
            min(used.cached_input_tokens, used.input_tokens),
            used.output_tokens,
            0 if surface == "messages" else used.reasoning_tokens,
        )
        told = told_in(surface, last_usage(surface, answer.text) if stream else answer.json())
        if told != due:
            wrong[name] = (told, due)
    assert not wrong
