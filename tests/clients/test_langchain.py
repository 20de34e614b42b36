"""LangChain's ``ChatOpenAI``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.clients.conftest import KEY, WEATHER, Tiers
from tests.fakes import World


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


@tool
def thermometer(city: str) -> str:
    """The temperature in a city."""
    return f"4 degrees in {city}"


@pytest.fixture
def model(proxy: World, tier: str) -> Iterator[ChatOpenAI]:
    yield chat(proxy, f"locum/{tier}")


def chat(proxy: World, model: str, **more: Any) -> ChatOpenAI:
    settings = {"base_url": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10} | more
    return ChatOpenAI(model=model, **settings)


def test_a_conversation(model: ChatOpenAI, proxy: World, tier: str, tiers: Tiers) -> None:
    turns: list[Any] = [SystemMessage("Be brief."), HumanMessage("hi")]
    first = model.invoke(turns)
    name = getattr(proxy, tier).model
    assert first.content == f"{name} hears turn 1: hi"
    assert first.usage_metadata is not None and first.usage_metadata["total_tokens"] == 110
    assert first.response_metadata["model_name"] == name
    second = model.invoke([*turns, first, HumanMessage("and?")])
    assert second.content == f"{name} hears turn 2: and?"
    assert tiers(2) == [tier, tier]


async def test_streams(model: ChatOpenAI, tier: str, tiers: Tiers) -> None:
    pieces = list(model.stream("stream it", stream_usage=True))
    assert len(pieces) > 5
    assert sum((p.usage_metadata or {}).get("total_tokens", 0) for p in pieces) == 110
    text = "".join(str(p.content) for p in pieces)
    assert text.endswith("hears turn 1: stream it")
    assert "".join([str(p.content) async for p in model.astream("stream it")]) == text
    assert tiers(2) == [tier, tier]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_heard(model: ChatOpenAI, tier: str, tiers: Tiers, streamed: bool) -> None:
    able, turns = model.bind_tools([thermometer]), [HumanMessage("how cold is it?")]
    asked: Any = able.invoke(turns)
    if streamed:
        pieces = list(able.stream(turns))
        asked = sum(pieces[1:], pieces[0])
    (call,) = asked.tool_calls
    result = thermometer.invoke(call)
    assert isinstance(result, ToolMessage)
    told = able.invoke([*turns, AIMessage(content="", tool_calls=[call]), result])
    assert str(told.content).endswith("was told: 4 degrees in Oslo")
    assert tiers(2 + streamed) == [tier] * (2 + streamed)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(model: ChatOpenAI, tier: str, tiers: Tiers, method: Any) -> None:
    shaped = model.with_structured_output(Weather, method=method)
    assert shaped.invoke("the weather in Oslo, as JSON?") == Weather(**WEATHER)
    assert tiers(1) == [tier]


def test_the_responses_api(proxy: World, tier: str, tiers: Tiers) -> None:
    model, name = chat(proxy, f"locum/{tier}", use_responses_api=True), getattr(proxy, tier).model
    first = model.invoke([HumanMessage("hi")])
    assert first.text == f"{name} hears turn 1: hi"
    assert model.invoke([HumanMessage("hi"), first, HumanMessage("and?")]).text == f"{name} hears turn 2: and?"
    assert "".join(piece.text for piece in model.stream("stream it")) == f"{name} hears turn 1: stream it"
    assert model.with_structured_output(Weather).invoke("the weather in Oslo?") == Weather(**WEATHER)
    turns: list[Any] = [HumanMessage("how cold is it?")]
    able = model.bind_tools([thermometer])
    turns.append(able.invoke(turns))
    turns.append(thermometer.invoke(turns[-1].tool_calls[0]))
    assert able.invoke(turns).text == f"{name} was told: 4 degrees in Oslo"
    assert tiers(6) == [tier] * 6


def test_embeddings(proxy: World) -> None:
    settings: dict[str, Any] = {"base_url": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10}
    embeddings = OpenAIEmbeddings(model="vectors", check_embedding_ctx_length=False, **settings)
    assert embeddings.embed_documents(["four", "eleven wide"]) == [[4.0, 0.5], [11.0, 0.5]]


def test_the_policy_decides(proxy: World, tiers: Tiers) -> None:
    chat(proxy, "gpt-4o").invoke("an easy one for langchain")
    chat(proxy, "gpt-4o", metadata={"task": "hard"}).invoke("not sent: this is LangChain's own metadata")
    chat(proxy, "gpt-4o", extra_body={"metadata": {"task": "hard"}}).invoke("a hard one for langchain")
    assert tiers(3) == ["student", "student", "teacher"]


def test_errors_are_openais(proxy: World, tier: str) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        chat(proxy, f"locum/{tier}").invoke("too long")
    with pytest.raises(openai.AuthenticationError):
        chat(proxy, f"locum/{tier}", api_key="sk-wrong").invoke("hi")
    with pytest.raises(openai.NotFoundError):
        list(chat(proxy, "gpt-nothing").stream("hi"))
