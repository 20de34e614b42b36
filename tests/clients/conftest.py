"""The proxy as clients meet it: they are given its address, a key and a model's name, and nothing else is changed.

Both upstreams play along as a chat model would: they count the turns they are shown, call the tools they are
given, fill in the schema that is asked for, and find a request that says so too long.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeUpstream, Script, World, served, until, world

KEY = "sk-mine"
SESSION_SECONDS = 60
WEATHER = {"city": "Oslo", "celsius": 4}
TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
POLICY: dict[str, Any] = {"rules": [{"when": {"metadata.task": "hard"}, "send": "teacher"}]}

Tiers = Callable[[int], list[str]]
Run = Callable[..., str]


def plays(upstream: FakeUpstream) -> Callable[[dict[str, Any]], Script]:
    """How ``upstream`` answers: see above."""

    def answer(body: dict[str, Any]) -> Script:
        messages = body["messages"]
        if "too long" in text_of(messages[-1]):
            return Script(status=400, error=TOO_LONG)
        if (tool := next_tool(body)) is not None:
            return calling(tool["name"], json.dumps(filled(tool.get("parameters") or {})))
        asked = body.get("response_format") or {}
        if asked.get("type") == "json_schema":
            return Script(text=json.dumps(filled(asked["json_schema"]["schema"])))
        if asked.get("type") == "json_object":
            return Script(text=json.dumps(WEATHER))
        if messages[-1]["role"] == "tool":
            return Script(text=f"{upstream.model} was told: {text_of(messages[-1])}")
        turns = [m for m in messages if m["role"] == "user"]
        return Script(text=f"{upstream.model} hears turn {len(turns)}: {text_of(turns[-1])}")

    return answer


def embeds(body: dict[str, Any]) -> Script:
    """A vector of two numbers for each text: its length and a half; packed, where that is asked for."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors: list[Any] = [[len(text), 0.5] for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return Script(raw=json.dumps({"object": "list", "model": "vectors", "data": data, "usage": usage}).encode())


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def next_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The first tool not called since the user spoke last; none where calling one is not wanted."""
    tools = [t["function"] for t in body.get("tools") or () if t["type"] == "function"]
    if body.get("tool_choice") == "none":
        return None
    since = [m for m in body["messages"] if m["role"] in ("user", "assistant")]
    spoke = max((n for n, m in enumerate(since) if m["role"] == "user"), default=0)
    called = {call["function"]["name"] for m in since[spoke:] for call in m.get("tool_calls") or ()}
    return next((t for t in tools if t["name"] not in called), None)


def filled(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: WEATHER.get(name, "dry") for name in schema.get("properties", {})}


def calling(name: str, arguments: str) -> Script:
    """A tool call, in a stream with its arguments in two pieces."""
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    middle = len(arguments) // 2
    pieces = [{"index": 0, "function": {"arguments": p}} for p in (arguments[:middle], arguments[middle:])]
    whole = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Script(
        text="",
        finish_reason="tool_calls",
        message={"content": None, "tool_calls": [whole]},
        deltas=tuple({"tool_calls": [piece]} for piece in (head, *pieces)),
    )


def playing(found: World) -> World:
    for upstream in (found.student, found.teacher):
        upstream.answer = plays(upstream)
    return found


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One proxy for every client: what is hard, and what needs tools, goes to the teacher."""
    vectors = FakeUpstream("vectors")
    vectors.answer = embeds
    with served(vectors) as url:
        part = {"model": "vectors", "url": f"{url}/v1", "usd_per_million": "0.02"}
        with world(tmp_path_factory.mktemp("clients"), client_keys=(KEY,), embeddings=part, **POLICY) as found:
            yield playing(found)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[World]:
    """A proxy of the test's own, with both backends too busy to answer."""
    with world(tmp_path, client_keys=(KEY,), **POLICY) as found:
        for upstream in (found.student, found.teacher):
            upstream.always(status=429)
        yield found


@pytest.fixture(params=["student", "teacher"])
def tier(request: pytest.FixtureRequest) -> str:
    """Each test that asks for it runs once for each tier."""
    return str(request.param)


@pytest.fixture
def tiers(proxy: World) -> Tiers:
    """``tiers(n)``: which tier answered each of the ``n`` requests since the test began, or since the last call."""
    began, told = time.time(), 0

    def fresh() -> list[str]:
        return [str(r.tier) for r in proxy.records() if r.created_at >= began and not r.embedding][told:]

    def since(n: int) -> list[str]:
        nonlocal told
        found: list[str] = until(lambda: f if len(f := fresh()) >= n else None)
        assert len(found) == n, "the client asked more often than it should"
        told += n
        return found

    return since


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client finds a key, an address or a web proxy that is not given to it here."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(proxy: World) -> Run:
    """``run(command, **environment)``: a client in a process of its own; what it printed. Fails where that does."""

    def ran(command: Sequence[str], **environment: str) -> str:
        env = os.environ | {"LOCUM_URL": proxy.url, "LOCUM_KEY": KEY} | environment
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SESSION_SECONDS, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return ran


def program(name: str) -> str:
    """Where a program is. Where it is missing the test is skipped, in CI it fails."""
    if (found := shutil.which(name)) is not None:
        return found
    if os.environ.get("LOCUM_CI"):
        pytest.fail(f"{name} is missing")
    pytest.skip(f"{name} is not installed")


PYTHON = sys.executable
HERE = Path(__file__).parent
