"""``curl``: the wire as it is."""

from __future__ import annotations

import json
from typing import Any

from tests.clients.conftest import KEY, Run, Tiers, program
from tests.fakes import World


def curl(run: Run, url: str, body: dict[str, Any], *more: str, key: str = KEY) -> str:
    command = [program("curl"), "-sS", "-N", "--max-time", "10", url, "-d", json.dumps(body), *more]
    return run([*command, "-H", f"authorization: Bearer {key}", "-H", "content-type: application/json"])


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def test_whole_and_streamed(run: Run, proxy: World, tier: str, tiers: Tiers) -> None:
    url, name = f"{proxy.url}/v1/chat/completions", getattr(proxy, tier).model
    text = f"{name} hears turn 1: hi"
    headers, _, body = curl(run, url, chat("hi", model=f"locum/{tier}"), "-i").partition("\n\n")
    assert headers.startswith("HTTP/1.1 200")
    assert f"x-locum-tier: {tier}" in headers.splitlines()
    assert json.loads(body)["choices"][0]["message"]["content"] == text
    events = curl(run, url, chat("hi", stream=True), "-H", f"x-locum-tier: {tier}").split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text
    assert tiers(2) == [tier, tier]


def test_the_policy_decides(run: Run, proxy: World, tiers: Tiers) -> None:
    url = f"{proxy.url}/v1/chat/completions"
    curl(run, url, chat("an easy one for curl"))
    curl(run, url, chat("a hard one for curl", metadata={"task": "hard"}))
    assert tiers(2) == ["student", "teacher"]


def test_errors_have_their_status(run: Run, proxy: World) -> None:
    url, status = f"{proxy.url}/v1/chat/completions", ("-w", "\n%{http_code}")
    found = {
        code: curl(run, url, body, *status, key=key).rpartition("\n")
        for code, body, key in (
            ("invalid_api_key", chat("hi"), "sk-wrong"),
            ("model_not_found", chat("hi", model="gpt-nothing"), KEY),
            ("context_length_exceeded", chat("too long"), KEY),
        )
    }
    assert {code: status for code, (_, _, status) in found.items()} == {
        "invalid_api_key": "401",
        "model_not_found": "404",
        "context_length_exceeded": "400",
    }
    assert all(json.loads(body)["error"]["code"] == code for code, (body, _, _) in found.items())
