"""OpenAI's client for Node, and the Vercel AI SDK: the sessions in ``node/``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import HERE, WEATHER, Run, Tiers, playing, program
from tests.clients.test_mended import DONE, EVENTS, STREAMS
from tests.fakes import World


def session(run: Run, name: str, **environment: str) -> Any:
    return json.loads(run([program("node"), str(HERE / "node" / name)], **environment))


def test_openai(run: Run, proxy: World, tier: str, tiers: Tiers) -> None:
    name, found = getattr(proxy, tier).model, session(run, "openai.mjs", LOCUM_MODEL=f"locum/{tier}")
    assert found["tier"] == tier
    assert found["turns"] == [f"{name} hears turn 1: hi", f"{name} hears turn 2: and?"]
    assert found["streamed"] == found["helped"] == f"{name} hears turn 1: hi"
    assert found["usage"] == 110
    assert found["parsed"] == WEATHER
    assert found["told"] == [f"{name} was told: 4 degrees in Oslo"] * 2
    assert found["errors"] == [
        {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key"},
        {"name": "NotFoundError", "status": 404, "code": "model_not_found"},
        {"name": "BadRequestError", "status": 400, "code": "context_length_exceeded"},
    ]
    hi = f"{name} hears turn 1: hi"
    assert found["responses"] == [hi, f"{name} hears turn 2: and?", hi]
    assert found["shaped"] == WEATHER
    assert found["embedded"] == [4, 0.5]
    assert {"gpt-4o", "locum/default", "locum/student", "locum/teacher"} <= set(found["models"])
    assert tiers(14)[:13] == [tier] * 13


@pytest.mark.parametrize("form", ["chat", "responses"])
def test_the_ai_sdk(run: Run, proxy: World, tier: str, tiers: Tiers, form: str) -> None:
    name = getattr(proxy, tier).model
    found = session(run, "ai_sdk.mjs", LOCUM_MODEL=f"locum/{tier}", LOCUM_FORM=form)
    assert found["tier"] == tier
    assert found["turns"] == [f"{name} hears turn 1: hi", f"{name} hears turn 2: and?"]
    assert found["usage"] == 110
    assert found["stream"]["text"] == f"{name} hears turn 1: stream it"
    assert found["stream"]["pieces"] > 3
    assert found["stream"]["tokens"] == 110
    assert found["shaped"] == WEATHER
    assert found["told"] == [f"{name} was told: 4 degrees in Oslo"] * 2
    assert found["embeddings"] == [[4, 0.5], [11, 0.5]]
    assert [error["name"] for error in found["errors"]] == ["APICallError"] * 4
    assert [error["status"] for error in found["errors"]] == [401, 404, 400, 400]
    assert tiers(10)[:8] == [tier] * 8


@pytest.mark.parametrize(
    "kind",
    ["two calls at index 0 in pieces", "arguments of an object", "one id twice", "half an emoji", "no end", "no role"],
)
def test_a_stream_that_is_a_little_wrong_says_the_same(run: Run, proxy: World, tier: str, kind: str) -> None:
    events, (text, calls, finish) = STREAMS[kind]
    getattr(proxy, tier).always(raw=b"".join(events) + DONE, headers=EVENTS)
    try:
        found = session(run, "mended.mjs", LOCUM_MODEL=f"locum/{tier}")
    finally:
        playing(proxy)
    assert (found["text"], [(name, given) for _, name, given in found["calls"]]) == (text, calls)
    assert found["finish"] == finish
    assert len({id_ for id_, *_ in found["calls"]}) == len(calls)
