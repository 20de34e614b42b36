"""OpenAI's own client for Python, over its Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.conftest import KEY, TOO_LONG, WEATHER, Tiers
from tests.fakes import Script, World

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "thermometer",
    "description": "The temperature in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Weather(BaseModel):
    city: str
    celsius: int


@pytest.fixture(scope="module")
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as found:
        yield found


def test_a_conversation_that_the_proxy_keeps(client: OpenAI, proxy: World, tier: str) -> None:
    name = getattr(proxy, tier).model
    raw = client.responses.with_raw_response.create(model=f"locum/{tier}", instructions="Be brief.", input="hi")
    first = raw.parse()
    assert raw.headers["x-locum-tier"] == tier
    assert (first.status, first.model, first.output_text) == ("completed", name, f"{name} hears turn 1: hi")
    assert first.usage is not None and first.usage.total_tokens == 110
    second = client.responses.create(model=f"locum/{tier}", previous_response_id=first.id, input="and?")
    assert second.output_text == f"{name} hears turn 2: and?"
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert len(client.responses.input_items.list(second.id).data) == 1
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_a_conversation_that_the_client_keeps(client: OpenAI, proxy: World, tier: str, tiers: Tiers) -> None:
    turns: list[Any] = [{"role": "user", "content": "hi"}]
    turns += client.responses.create(model=f"locum/{tier}", input=turns, store=False).output
    turns.append({"role": "user", "content": "and?"})
    second = client.responses.create(model=f"locum/{tier}", input=turns, store=False)
    assert second.output_text == f"{getattr(proxy, tier).model} hears turn 2: and?"
    assert tiers(2) == [tier, tier]


def test_a_stream(client: OpenAI, tier: str, tiers: Tiers) -> None:
    events = list(client.responses.create(model=f"locum/{tier}", input="stream it", stream=True))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text.endswith("hears turn 1: stream it")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with client.responses.stream(model=f"locum/{tier}", input="stream it") as stream:
        assert sum(event.type == "response.output_text.delta" for event in stream) > 3
        assert stream.get_final_response().output_text == text
    assert tiers(2) == [tier, tier]


def test_structured_output_is_parsed(client: OpenAI, tier: str, tiers: Tiers) -> None:
    asked: Any = {"model": f"locum/{tier}", "input": "the weather in Oslo?", "text_format": Weather}
    assert client.responses.parse(**asked).output_parsed == Weather(**WEATHER)
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_parsed == Weather(**WEATHER)
    assert tiers(2) == [tier, tier]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_heard(client: OpenAI, tier: str, tiers: Tiers, streamed: bool) -> None:
    asked: Any = {"model": f"locum/{tier}", "tools": [TOOL]}
    if streamed:
        with client.responses.stream(input="how cold is it?", **asked) as stream:
            found: Any = stream.get_final_response()
    else:
        found = client.responses.create(input="how cold is it?", **asked)
    (call,) = (item for item in found.output if item.type == "function_call")
    assert (call.name, json.loads(call.arguments)) == ("thermometer", {"city": "Oslo"})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}
    told = client.responses.create(input=[result], previous_response_id=found.id, **asked)
    assert told.output_text.endswith("was told: 4 degrees")
    assert tiers(2) == [tier, tier]


async def test_it_works_the_same_asynchronously(proxy: World, tier: str, tiers: Tiers) -> None:
    async with AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        whole = await client.responses.create(model=f"locum/{tier}", input="hi")
        async with client.responses.stream(model=f"locum/{tier}", input="hi") as stream:
            assert (await stream.get_final_response()).output_text == whole.output_text
    assert tiers(2) == [tier, tier]


def test_the_policy_decides(client: OpenAI, tiers: Tiers) -> None:
    first = client.responses.create(model="gpt-4o", input="easy for responses")
    client.responses.create(model="gpt-4o", input="hard", previous_response_id=first.id, metadata={"task": "hard"})
    client.responses.create(model="gpt-4o", input="a tool for responses", tools=[TOOL])
    assert tiers(3) == ["student", "teacher", "teacher"]


def test_errors_are_its_own(client: OpenAI, tier: str, busy: World) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as long:
        client.responses.create(model=f"locum/{tier}", input="too long")
    assert long.value.code == TOO_LONG["code"]
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="gpt-nothing", input="hi")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").responses.create(model="gpt-4o", input="hi")
    with pytest.raises(openai.BadRequestError, match="one provider's own server"):
        client.responses.create(model="gpt-4o", input="hi", tools=[{"type": "file_search"}])
    with OpenAI(base_url=f"{busy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as waiting:
        with pytest.raises(openai.RateLimitError):
            waiting.responses.create(model="gpt-4o", input="call", tools=[TOOL])
        busy.student.answer = lambda body: Script(text="one two three four five six", die_after=5)
        events = waiting.responses.create(model="locum/student", input="break", stream=True)
        with pytest.raises(openai.APIError, match=r"middle|broke"):
            list(events)
