"""LlamaIndex's ``OpenAI`` (a model it knows by name) and ``OpenAILike`` (any other)."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.clients.conftest import KEY, WEATHER, Tiers
from tests.fakes import World


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


def thermometer(city: str) -> str:
    """The temperature in a city."""
    return f"4 degrees in {city}"


@pytest.fixture
def model(proxy: World, tier: str) -> OpenAILike:
    return like(proxy, f"locum/{tier}")


def like(proxy: World, model: str, **more: Any) -> OpenAILike:
    settings: dict[str, Any] = {"api_base": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10} | more
    return OpenAILike(model=model, is_chat_model=True, is_function_calling_model=True, context_window=8192, **settings)


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def test_a_conversation(model: OpenAILike, proxy: World, tier: str, tiers: Tiers) -> None:
    name = getattr(proxy, tier).model
    first = model.chat([user("hi")])
    assert first.message.content == f"{name} hears turn 1: hi"
    second = model.chat([user("hi"), first.message, user("and?")])
    assert second.message.content == f"{name} hears turn 2: and?"
    assert model.complete("once").text == f"{name} hears turn 1: once"
    assert tiers(3) == [tier] * 3


async def test_streams(model: OpenAILike, tier: str, tiers: Tiers) -> None:
    pieces = list(model.stream_chat([user("stream it")]))
    assert len(pieces) > 5
    text = pieces[-1].message.content
    assert text is not None and text.endswith("hears turn 1: stream it")
    stream = await model.astream_chat([user("stream it")])
    assert "".join([piece.delta or "" async for piece in stream]) == text
    assert tiers(2) == [tier, tier]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_heard(model: OpenAILike, tier: str, tiers: Tiers, streamed: bool) -> None:
    able, turns = FunctionTool.from_defaults(thermometer), [user("how cold is it?")]
    if streamed:
        asked = list(model.stream_chat_with_tools([able], chat_history=turns))[-1]
    else:
        asked = model.chat_with_tools([able], chat_history=turns)
    (call,) = model.get_tool_calls_from_response(asked)
    result = able.call(**call.tool_kwargs)
    heard = ChatMessage(role=MessageRole.TOOL, content=result.content, additional_kwargs={"tool_call_id": call.tool_id})
    told = model.chat_with_tools([able], chat_history=[*turns, asked.message, heard])
    assert (told.message.content or "").endswith("was told: 4 degrees in Oslo")
    assert tiers(2) == [tier, tier]


def test_structured_output(model: OpenAILike, tier: str, tiers: Tiers) -> None:
    found = model.structured_predict(Weather, PromptTemplate("the weather in {city}?"), city="Oslo")
    assert found == Weather(**WEATHER)
    assert tiers(1) == [tier]


def test_the_responses_api(proxy: World, tiers: Tiers) -> None:
    settings: dict[str, Any] = {"api_base": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10}
    model = OpenAIResponses(model="gpt-4o", **settings)
    first = model.chat([user("hi, llama-index")])
    text = f"{proxy.student.model} hears turn 1: hi, llama-index"
    assert first.message.content == text
    again = model.chat([user("hi, llama-index"), first.message, user("and?")])
    assert again.message.content == f"{proxy.student.model} hears turn 2: and?"
    assert "".join(piece.delta or "" for piece in model.stream_chat([user("hi, llama-index")])) == text
    assert tiers(3) == ["student"] * 3


def test_the_policy_decides_under_the_name_that_code_already_uses(proxy: World, tiers: Tiers) -> None:
    settings: dict[str, Any] = {"api_base": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10}
    OpenAI(model="gpt-4o", **settings).complete("an easy one for llama-index")
    hard = {"extra_body": {"metadata": {"task": "hard"}}}
    list(OpenAI(model="gpt-4o", additional_kwargs=hard, **settings).stream_complete("a hard one for llama-index"))
    assert tiers(2) == ["student", "teacher"]


def test_errors_are_openais(model: OpenAILike, proxy: World) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        model.complete("too long")
    with pytest.raises(openai.AuthenticationError):
        like(proxy, model.model, api_key="sk-wrong").complete("hi")
    with pytest.raises(openai.NotFoundError):
        list(like(proxy, "gpt-nothing").stream_complete("hi"))
