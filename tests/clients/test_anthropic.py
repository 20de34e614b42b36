"""Anthropic's own client for Python: what was written for Claude, answered by this proxy's tiers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

from tests.clients.conftest import KEY, WEATHER, Tiers
from tests.fakes import Script, World

TOOL: dict[str, Any] = {
    "name": "thermometer",
    "description": "The temperature in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Weather(BaseModel):
    city: str
    celsius: int


def asked(model: str, *texts: str, **more: Any) -> Any:
    """A request: the user's turn, the assistant's, the user's, ..."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"model": model, "max_tokens": 64, "messages": turns} | more


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.fixture(scope="module")
def client(proxy: World) -> Iterator[Anthropic]:
    with Anthropic(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=10) as found:
        yield found


def test_a_conversation(client: Anthropic, proxy: World, tier: str) -> None:
    name, model = getattr(proxy, tier).model, f"locum/{tier}"
    raw = client.messages.with_raw_response.create(**asked(model, "hi", system="Be brief."))
    first = raw.parse()
    assert raw.headers["x-locum-tier"] == tier
    assert (first.type, first.role, first.stop_reason, first.model) == ("message", "assistant", "end_turn", name)
    assert text_of(first) == f"{name} hears turn 1: hi"
    assert (first.usage.input_tokens, first.usage.output_tokens) == (100, 10)
    second = client.messages.create(**asked(model, "hi", text_of(first), "and?"))
    assert text_of(second) == f"{name} hears turn 2: and?"
    assert client.messages.count_tokens(model=model, messages=asked(model, "hi")["messages"]).input_tokens > 0


def test_a_stream(client: Anthropic, tier: str, tiers: Tiers) -> None:
    with client.messages.stream(**asked(f"locum/{tier}", "stream it")) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == text_of(final)
    assert text_of(final).endswith("hears turn 1: stream it")
    assert final.usage.output_tokens == 10
    kinds = [event.type for event in client.messages.create(**asked(f"locum/{tier}", "stream it", stream=True))]
    assert (kinds[0], kinds[1], kinds[-1]) == ("message_start", "content_block_start", "message_stop")
    assert tiers(2) == [tier, tier]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_heard(client: Anthropic, tier: str, tiers: Tiers, streamed: bool) -> None:
    request = asked(f"locum/{tier}", "how cold is it?", tools=[TOOL])
    if streamed:
        with client.messages.stream(**request) as stream:
            found = stream.get_final_message()
    else:
        found = client.messages.create(**request)
    assert found.stop_reason == "tool_use"
    (call,) = (block for block in found.content if block.type == "tool_use")
    assert (call.name, call.input) == ("thermometer", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "4 degrees"}
    request["messages"] += [{"role": "assistant", "content": found.content}, {"role": "user", "content": [result]}]
    assert text_of(client.messages.create(**request)).endswith("was told: 4 degrees")
    assert tiers(2) == [tier, tier]


def test_structured_output_is_parsed(client: Anthropic, tier: str, tiers: Tiers) -> None:
    found = client.messages.parse(**asked(f"locum/{tier}", "the weather?", output_format=Weather))
    assert found.parsed_output == Weather(**WEATHER)
    assert tiers(1) == [tier]


async def test_it_works_the_same_asynchronously(proxy: World, tier: str, tiers: Tiers) -> None:
    async with AsyncAnthropic(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=10) as client:
        whole = await client.messages.create(**asked(f"locum/{tier}", "hi"))
        async with client.messages.stream(**asked(f"locum/{tier}", "hi")) as stream:
            assert await stream.get_final_text() == text_of(whole)
    assert tiers(2) == [tier, tier]


def test_the_policy_decides(client: Anthropic, tiers: Tiers) -> None:
    client.messages.create(**asked("gpt-4o", "easy for anthropic"))
    client.messages.create(**asked("gpt-4o", "hard for anthropic", metadata={"task": "hard"}))
    client.messages.create(**asked("gpt-4o", "a tool for anthropic", tools=[TOOL]))
    assert tiers(3) == ["student", "teacher", "teacher"]


def test_errors_are_its_own(client: Anthropic, proxy: World, tier: str, busy: World) -> None:
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        client.messages.create(**asked(f"locum/{tier}", "too long"))
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(**asked(f"locum/{tier}", "hi", max_tokens=0))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**asked("claude-nothing", "hi"))
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="sk-wrong").messages.create(**asked(f"locum/{tier}", "hi"))
    with Anthropic(base_url=busy.url, api_key=KEY, max_retries=0, timeout=10) as waiting:
        with pytest.raises(anthropic.RateLimitError):
            waiting.messages.create(**asked("gpt-4o", "call", tools=[TOOL]))
        busy.student.answer = lambda body: Script(text="one two three four five six", die_after=5)
        with (
            pytest.raises(anthropic.APIError, match=r"middle|broke"),
            waiting.messages.stream(**asked("locum/student", "break")) as stream,
        ):
            stream.until_done()
