"""One set of promises for every kind of student: started here on torch or llama.cpp, or reached by URL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from router.bundles.students import StartedHere
from router.contracts.bundles import StudentRef, activate
from router.engine.weights import base_gguf
from router.judges.soundness import called_as_offered
from tests.manifests import complete
from tests.router.engine.conftest import STUDENT, Student

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = "What is the capital city of France? Answer in English."
CAPITAL = [{"role": "user", "content": QUESTION}]
COLOURS = [{"role": "user", "content": "Name three colours."}]
GREEDY = {"temperature": 0, "max_tokens": 16}


async def ask(student: Student, messages: Any, **more: Any) -> Any:
    model = more.pop("model", student.place.model)
    return await student.client.chat.completions.create(model=model, messages=messages, **{**GREEDY, **more})


async def test_it_answers_sensibly_and_counts_tokens(student: Student) -> None:
    answer = await ask(student, CAPITAL)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 10
    assert 0 < answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_it_lists_its_model(student: Student) -> None:
    assert student.place.model in [m.id async for m in await student.client.models.list()]


async def test_a_stream_is_the_same_text_token_by_token(student: Student) -> None:
    whole = await ask(student, COLOURS)
    chunks = [c async for c in await ask(student, COLOURS, stream=True, stream_options={"include_usage": True})]
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(texts) == whole.choices[0].message.content
    assert len(texts) > 4
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]


async def test_every_token_comes_with_its_log_probability(student: Student) -> None:
    answer = await ask(student, COLOURS, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert all(t.logprob <= 0 for t in content)
    assert all(len(t.top_logprobs) == 3 for t in content)
    assert all(t.top_logprobs[0].logprob == pytest.approx(t.logprob, abs=0.05) for t in content), "greedy takes the top"
    assert "".join(t.token for t in content) == answer.choices[0].message.content


async def test_a_stream_carries_log_probabilities_too(student: Student) -> None:
    chunks = [c async for c in await ask(student, COLOURS, stream=True, logprobs=True)]
    content = [t for c in chunks if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content or []]
    assert len(content) == 16
    assert all(t.logprob <= 0 for t in content)


async def test_a_stop_string_ends_the_answer_and_stays_out_of_it(student: Student) -> None:
    free = (await ask(student, CAPITAL)).choices[0].message.content
    answer = await ask(student, CAPITAL, stop=["capital"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == free[: free.index("capital")]


async def test_max_tokens_is_kept_by_either_name(student: Student) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = await ask(student, COLOURS, **{"max_tokens": openai.omit, name: 3})
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


async def test_a_batch_answers_as_each_alone_would(student: Student) -> None:
    towns = ["France", "Italy", "Spain", "Japan", "Egypt", "Norway", "Greece", "Canada", "Peru", "Kenya"]
    asked = [
        [{"role": "user", "content": f"What is the capital of {t}?" + " Be brief." * (i % 3)}]
        for i, t in enumerate(towns)
    ]
    alone = [await ask(student, m, max_tokens=6) for m in asked]
    together = await asyncio.gather(*(ask(student, m, max_tokens=6) for m in asked))
    same = [a.choices[0].message.content == b.choices[0].message.content for a, b in zip(alone, together, strict=True)]
    # Half precision rounds differently in another batch, so near ties may fall the other way; fp32 may not.
    assert all(same) if student.kind == "url" else sum(same) >= 8


async def test_content_may_be_text_parts_and_fields_that_say_nothing_are_let_through(student: Student) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    idle = {"a_field_of_tomorrow": None}
    answer = await ask(student, parts, user="u", metadata={"a": "b"}, n=1, extra_body=idle)
    assert "Paris" in answer.choices[0].message.content


async def test_an_answer_fits_the_schema_that_is_asked_for(student: Student) -> None:
    schema = {
        "type": "object",
        "properties": {"colours": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 2, "maxItems": 2}},
        "required": ["colours"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "colours", "schema": schema}}
    answer = await ask(student, COLOURS, response_format=form, max_tokens=60)
    assert set(json.loads(answer.choices[0].message.content)["colours"]) <= {"red", "blue"}
    assert answer.choices[0].finish_reason == "stop"


async def test_what_the_engine_would_drop_it_refuses_by_name(student: Student) -> None:
    if student.kind == "llama-server":
        pytest.skip("llama-server drops what it does not know: the proxy keeps such requests from it")
    beyond = {"functions": [{"name": "f"}], "a_field_of_tomorrow": {"x": 1}, "reasoning_effort": "high"}
    for field, value in beyond.items():
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(student, CAPITAL, extra_body={field: value})
        assert refused.value.param == field
    called = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError, match="reads texts and calls of tools"):
        await ask(student, [*CAPITAL, called])


def tool(name: str, **properties: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": schema}}


TOOLS = [tool("weather", city={"enum": ["Oslo", "Rome"]}, days={"type": "integer"}), tool("clock", zone={"const": "x"})]


async def test_it_must_call_what_it_is_told_to_with_arguments_that_fit(student: Student) -> None:
    if student.kind == "llama-server":
        pytest.skip("of a choice it knows two: the proxy keeps others from it")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = await ask(student, CAPITAL, tools=TOOLS, tool_choice=choice, max_tokens=80)
        assert answer.choices[0].finish_reason == "tool_calls" and not answer.choices[0].message.content
        message = answer.choices[0].message.model_dump()
        assert called_as_offered(message, {"tools": TOOLS, "tool_choice": choice})
        assert len({call["id"] for call in message["tool_calls"]}) == len(message["tool_calls"])


async def test_a_stream_of_calls_is_the_same_in_pieces(student: Student) -> None:
    if student.kind == "llama-server":
        pytest.skip("it shows no tools in a template that has none")
    asked: Any = {"tools": [TOOLS[0]], "tool_choice": "required", "max_tokens": 80}
    whole = (await ask(student, CAPITAL, **asked)).choices[0].message.tool_calls
    chunks = [c async for c in await ask(student, CAPITAL, stream=True, **asked)]
    parts = [p for c in chunks if c.choices for p in c.choices[0].delta.tool_calls or ()]
    names = [p.function.name for p in parts if p.function.name]
    assert names == [call.function.name for call in whole]
    assert "".join(p.function.arguments or "" for p in parts if p.index == 0) == whole[0].function.arguments
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["tool_calls"]


async def test_calls_and_their_results_are_read(student: Student) -> None:
    called = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    said = [{"role": "assistant", "content": None, "tool_calls": [called]}]
    result = {"role": "tool", "tool_call_id": "abcdefghi", "content": "It is 4 degrees in Oslo."}
    answer = await ask(student, [*CAPITAL, *said, result], tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
    assert answer.usage.prompt_tokens > 40


async def test_several_choices_are_several_answers(student: Student) -> None:
    answer = await ask(student, COLOURS, n=3, temperature=1.5, seed=1, max_tokens=12)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) > 1


async def test_nonsense_is_refused_in_openais_shape(student: Student) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(student, [{"role": "user", "content": [{"type": "hologram"}]}])
    assert refused.value.body is not None
    with pytest.raises(openai.APIStatusError):
        await ask(student, CAPITAL, temperature="warm")


async def test_an_unknown_model_is_404(student: Student) -> None:
    if student.kind == "llama-server":
        pytest.skip("llama-server answers to any model name, being one process a version")
    with pytest.raises(openai.NotFoundError) as refused:
        await ask(student, CAPITAL, model="no-such-version")
    assert refused.value.code == "model_not_found"


async def test_a_busy_engine_still_says_that_it_lives(student: Student) -> None:
    """A probe that waits behind requests has the supervisor end a server which only has much to do."""
    url, answered, first = student.place.url, 0, asyncio.Event()
    body = {"model": student.place.model, "messages": COLOURS, "temperature": 0, "max_tokens": 4}

    async def keeps_asking() -> None:
        nonlocal answered
        async with aiohttp.ClientSession() as session:  # a connection of its own, which it keeps
            for _ in range(3):
                async with session.post(f"{url}/chat/completions", json=body, raise_for_status=True) as response:
                    await response.read()
                answered += 1
                first.set()

    asking = [asyncio.create_task(keeps_asking()) for _ in range(24)]
    await first.wait()
    async with aiohttp.ClientSession() as session, session.get(url.removesuffix("/v1") + "/health") as response:
        assert response.status == 200
    before = answered
    await asyncio.gather(*asking)
    assert before <= answered / 2, "the probe waited for answers"


async def test_a_second_version_is_served_beside_the_first_and_forgotten_later(student: Student, base: Path) -> None:
    """The pointer's way: a bundle is activated, loaded beside the base, and both answer meanwhile."""
    if student.engine is None:
        pytest.skip("a student by URL is not started here")
    engine, folder = student.engine, student.settings.bundles("default")
    for name in ("first", "second"):
        bundle_of(folder, name, base)
    ready = StartedHere(student.settings.run / "default.student.json")
    activate(folder, "first")
    await until(lambda: "first" in engine.versions)
    assert set(engine.versions) == {"base", "first"}
    for name, place in list(engine.versions.items()):
        answer = await ask(student_at(student, place.url), CAPITAL, model=place.model)
        assert "Paris" in answer.choices[0].message.content, name
    assert (await ready.find(None)) is not None
    activate(folder, "second")
    await until(lambda: set(engine.versions) == {"first", "second"})
    activate(folder, None)
    await until(lambda: set(engine.versions) == {"base", "second"})


async def test_a_killed_engine_comes_back_with_all_its_versions(student: Student) -> None:
    if student.engine is None:
        pytest.skip("a student by URL is not started here")
    engine = student.engine
    before = dict(engine.versions)
    for pid in set(engine.pids.values()):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not engine.versions)
    await until(lambda: set(engine.versions) == set(before))
    place = engine.versions["base"]
    if student.kind == "embedded":
        assert place == before["base"], "the address stays, so that nobody need look again"
    assert "Paris" in (await ask(student_at(student, place.url), CAPITAL)).choices[0].message.content


def student_at(student: Student, url: str) -> Student:
    return Student(student.kind, student.place, student.client.with_options(base_url=url), student.settings)


async def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  (it watches other processes' files)
            await asyncio.sleep(0.05)


def bundle_of(folder: Path, name: str, weights: Path) -> None:
    """A bundle with the base's own weights, in both forms."""
    home = folder / name
    home.mkdir(parents=True)
    (home / "student").symlink_to(weights)
    (home / "student.gguf").symlink_to(base_gguf(STUDENT))
    complete(folder, name, student=StudentRef(model=STUDENT, path="student", gguf="student.gguf"))
