"""OpenAI's own client for Python."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.conftest import KEY, TOO_LONG, WEATHER, Tiers
from tests.fakes import Script, World

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "thermometer",
        "description": "The temperature in a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Weather(BaseModel):
    city: str
    celsius: int


def said(*texts: str) -> list[Any]:
    """A conversation: the user's turn, the assistant's, the user's, ..."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as found:
        yield found


@pytest.fixture
async def aclient(proxy: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as found:
        yield found


def test_a_conversation(client: OpenAI, proxy: World, tier: str) -> None:
    upstream = getattr(proxy, tier)
    raw = client.chat.completions.with_raw_response.create(model=f"locum/{tier}", messages=said("hi"))
    first = raw.parse()
    assert raw.headers["x-locum-tier"] == tier
    assert first.model == upstream.model
    assert first.choices[0].message.content == f"{upstream.model} hears turn 1: hi"
    assert first.usage is not None and first.usage.total_tokens == 110
    turns = said("hi", first.choices[0].message.content or "", "and?")
    second = client.chat.completions.create(model=f"locum/{tier}", messages=turns, temperature=0, seed=7)
    assert second.choices[0].message.content == f"{upstream.model} hears turn 2: and?"
    assert upstream.seen[-1].body["seed"] == 7


def test_the_policy_decides_under_the_name_that_code_already_uses(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response
    assert raw.create(model="gpt-4o", messages=said("easy")).headers["x-locum-tier"] == "student"
    hard = raw.create(model="gpt-4o", messages=said("hard"), metadata={"task": "hard"})
    assert (hard.headers["x-locum-tier"], hard.headers["x-locum-reason"]) == ("teacher", "rule")
    assert raw.create(model="gpt-4o", messages=said("tool"), tools=[TOOL]).headers["x-locum-tier"] == "teacher"


def test_a_stream(client: OpenAI, proxy: World, tier: str, tiers: Tiers) -> None:
    options: Any = {"include_usage": True}
    with client.chat.completions.create(
        model=f"locum/{tier}", messages=said("stream it"), stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == f"{getattr(proxy, tier).model} hears turn 1: stream it"
    assert len(chunks) > 5
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 10
    assert tiers(1) == [tier]


def test_a_stream_is_put_together_by_its_helper(client: OpenAI, tier: str, tiers: Tiers) -> None:
    with client.chat.completions.stream(
        model=f"locum/{tier}", messages=said("weather?"), response_format=Weather
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.parsed == Weather(**WEATHER)
    assert tiers(1) == [tier]


def test_structured_output_is_parsed(client: OpenAI, tier: str, tiers: Tiers) -> None:
    found = client.chat.completions.parse(
        model=f"locum/{tier}", messages=said("weather in Oslo?"), response_format=Weather
    )
    assert found.choices[0].message.parsed == Weather(**WEATHER)
    assert tiers(1) == [tier]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_heard(client: OpenAI, tier: str, tiers: Tiers, streamed: bool) -> None:
    turns, asked = said("how cold is it?"), {"model": f"locum/{tier}", "tools": [TOOL]}
    if streamed:
        with client.chat.completions.stream(messages=turns, **asked) as stream:
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=turns, **asked).choices[0].message
    call = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("thermometer", {"city": "Oslo"})
    turns = [*turns, message, {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"}]
    answer = client.chat.completions.create(messages=turns, **asked)
    assert (answer.choices[0].message.content or "").endswith("was told: 4 degrees")
    assert tiers(2) == [tier, tier]


async def test_it_works_the_same_asynchronously(aclient: AsyncOpenAI, tier: str, tiers: Tiers) -> None:
    whole = await aclient.chat.completions.create(model=f"locum/{tier}", messages=said("hi"))
    stream = await aclient.chat.completions.create(model=f"locum/{tier}", messages=said("hi"), stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text == whole.choices[0].message.content
    async with aclient.chat.completions.stream(model=f"locum/{tier}", messages=said("hi")) as events:
        assert (await events.get_final_completion()).choices[0].message.content == text
    assert tiers(3) == [tier] * 3


def test_the_models_are_listed(client: OpenAI) -> None:
    assert {"locum/default", "locum/student", "locum/teacher", "gpt-4o"} <= {m.id for m in client.models.list()}


def test_text_completions(client: OpenAI, proxy: World, tier: str, tiers: Tiers) -> None:
    asked: Any = {"model": f"locum/{tier}", "prompt": "once upon", "max_tokens": 32}
    text = f"{getattr(proxy, tier).model} hears turn 1: once upon"
    assert client.completions.create(**asked).choices[0].text == text
    stream = client.completions.create(**asked, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == text
    assert tiers(2) == [tier, tier]


def test_embeddings(client: OpenAI) -> None:
    found = client.embeddings.create(model="gpt-4o", input=["four", "eleven wide"])
    assert [one.embedding for one in found.data] == [[4.0, 0.5], [11.0, 0.5]]
    assert client.embeddings.create(model="vectors", input="one", encoding_format="float").data[0].embedding == [3, 0.5]


def test_errors_are_its_own(client: OpenAI, proxy: World) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-nothing", messages=said("hi"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="sk-wrong").chat.completions.create(model="gpt-4o", messages=said("hi"))
    assert stranger.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="gpt-4o", messages=[])
    assert wrong.value.param == "messages"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_backends_own_words_arrive(client: OpenAI, tier: str, streamed: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        client.chat.completions.create(model=f"locum/{tier}", messages=said("too long"), stream=streamed)
    assert caught.value.code == TOO_LONG["code"]


def test_busy_backends_and_broken_streams_are_errors_too(busy: World) -> None:
    with OpenAI(base_url=f"{busy.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="gpt-4o", messages=said("call"), tools=[TOOL])
        busy.student.answer = lambda body: Script(text="one two three four five six", die_after=5)
        with pytest.raises(openai.APIError, match=r"middle|broke"):
            list(client.chat.completions.create(model="locum/student", messages=said("break"), stream=True))
