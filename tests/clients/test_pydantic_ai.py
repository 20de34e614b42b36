"""Pydantic AI's agents, over chat completions and over Responses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import KEY, WEATHER, Tiers
from tests.fakes import World


class Weather(BaseModel):
    city: str
    celsius: int


@pytest.fixture(params=["chat", "responses"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def agent(proxy: World, form: str, model: str, key: str = KEY, **more: Any) -> Agent[None, Any]:
    speaks = OpenAIChatModel if form == "chat" else OpenAIResponsesModel
    provider = OpenAIProvider(base_url=f"{proxy.url}/v1", api_key=key)
    return Agent(speaks(model, provider=provider), **more)


async def test_a_conversation(proxy: World, form: str, tier: str, tiers: Tiers) -> None:
    someone, name = agent(proxy, form, f"locum/{tier}", instructions="Be brief."), getattr(proxy, tier).model
    first = await someone.run("hi")
    assert first.output == f"{name} hears turn 1: hi"
    assert first.usage.total_tokens == 110
    second = await someone.run("and?", message_history=first.all_messages())
    assert second.output == f"{name} hears turn 2: and?"
    assert tiers(2) == [tier, tier]


async def test_a_stream(proxy: World, form: str, tier: str, tiers: Tiers) -> None:
    async with agent(proxy, form, f"locum/{tier}").run_stream("stream it") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 3
    assert "".join(pieces).endswith("hears turn 1: stream it")
    assert tiers(1) == [tier]


async def test_a_tool_is_called_and_its_result_heard(proxy: World, form: str, tier: str, tiers: Tiers) -> None:
    someone = agent(proxy, form, f"locum/{tier}")

    @someone.tool_plain
    def thermometer(city: str) -> str:
        return f"4 degrees in {city}"

    assert (await someone.run("how cold is it?")).output.endswith("was told: 4 degrees in Oslo")
    async with someone.run_stream("how cold is it?") as stream:
        assert (await stream.get_output()).endswith("was told: 4 degrees in Oslo")
    assert tiers(4) == [tier] * 4


@pytest.mark.parametrize("output", [Weather, NativeOutput(Weather)], ids=["by a tool", "by a schema"])
async def test_structured_output(proxy: World, form: str, tier: str, tiers: Tiers, output: Any) -> None:
    found = await agent(proxy, form, f"locum/{tier}", output_type=output).run("the weather in Oslo?")
    assert found.output == Weather(**WEATHER)
    assert tiers(1) == [tier]


async def test_the_policy_decides(proxy: World, form: str, tiers: Tiers) -> None:
    someone = agent(proxy, form, "gpt-4o")
    await someone.run(f"an easy one for pydantic-ai by {form}")
    await someone.run(
        f"a hard one for pydantic-ai by {form}", model_settings={"extra_body": {"metadata": {"task": "hard"}}}
    )
    assert tiers(2) == ["student", "teacher"]


async def test_errors_are_its_own(proxy: World, form: str, tier: str) -> None:
    with pytest.raises(ModelHTTPError, match="maximum context length") as long:
        await agent(proxy, form, f"locum/{tier}").run("too long")
    assert long.value.status_code == 400
    with pytest.raises(ModelHTTPError) as stranger:
        await agent(proxy, form, f"locum/{tier}", key="sk-wrong").run("hi")
    assert stranger.value.status_code == 401
    with pytest.raises(ModelHTTPError) as unknown:
        await agent(proxy, form, "gpt-nothing").run("hi")
    assert unknown.value.status_code == 404
