"""What a backend must get back of its turns, it gets back, whichever form its client speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from openai import OpenAI

from router.backends import thoughts
from router.backends.thoughts import Debts
from tests.fakes import FakeUpstream, Script, World, served, world

LONG = "function-call-1234567890123456789"
LS: dict[str, Any] = {"type": "object", "properties": {}}
SIGNED = {"extra_content": {"google": {"thought_signature": "CpQB=="}}}


def call(id: Any = LONG, arguments: Any = '{"a": 1, "b": 2}', **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "ls", "arguments": arguments}, **more}


def turn(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def kept(*turns: Any, owner: str = "A", conversation: str = "c", **more: Any) -> Debts:
    found = Debts(**more)
    found.keep(turns, "kimi", owner, conversation)
    return found


def back(store: Debts, *turns: Any, writer: str = "kimi", owner: str = "A", conversation: str = "c") -> Any:
    return store.given_back(turns, writer, owner, conversation)


def test_it_is_put_back_where_it_is_missing_and_nowhere_else() -> None:
    store = kept(turn(call(**SIGNED), call("two-1234567890123456789"), reasoning_content="hm"))
    (found,) = back(store, turn(call(), call("two-1234567890123456789")))
    assert found == turn(call(**SIGNED), call("two-1234567890123456789"), reasoning_content="hm")
    (said,) = back(store, turn(call(extra_content="the client's own"), reasoning="the client's own"))
    assert said == turn(call(extra_content="the client's own"), reasoning="the client's own")
    same = (turn(call("another-1234567890123456")), {"role": "user", "content": "x"}, "no message", turn("no call"))
    assert store.given_back(same, "kimi", "A", "c") is same


def test_it_is_its_writers_and_its_owners_alone() -> None:
    store, asked = kept(turn(call(), reasoning_content="hm")), turn(call())
    assert back(store, asked)[0]["reasoning_content"] == "hm"
    assert back(store, asked, writer="deepseek") == (asked,)
    assert back(store, asked, owner="B") == (asked,)


def test_ids_that_count_from_0_mean_a_call_of_the_same_conversation_alone() -> None:
    store = kept(turn(call("functions.ls:0"), reasoning_content="hm"))
    again = turn(call("functions.ls:0", '{"b":2,"a":1}'))  # read and written anew, as surfaces do
    assert back(store, again)[0]["reasoning_content"] == "hm"
    for other in (back(store, again, conversation="d"), back(store, turn(call("functions.ls:0", "{}")))):
        assert "reasoning_content" not in other[0]


@pytest.mark.parametrize("odd", [None, 7, [], {"x": float("nan")}, "no json", '{"a":' * 400])
def test_odd_calls_are_passed_over(odd: Any) -> None:
    bare: dict[str, Any] = {"role": "assistant", "tool_calls": odd}
    store = kept(turn(call("x", odd), call(odd), reasoning_content="hm"), bare)
    asked = turn(call("x", odd), call(odd)), bare
    assert [one["tool_calls"] for one in back(store, *asked)] == [one["tool_calls"] for one in asked]
    assert back(store, bare) == (bare,)


def test_it_is_bounded_by_calls_bytes_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thoughts, "MOST_CALLS", 3)
    now = [0.0]
    store = Debts(clock=lambda: now[0])
    asked = [turn(call(f"{n:030}")) for n in range(5)]
    for one in asked:
        store.keep([one | {"reasoning": "hm"}], "kimi", "A", "c")
    assert ["reasoning" in t for t in back(store, *asked)] == [False, False, True, True, True]
    monkeypatch.setattr(thoughts, "MOST_BYTES", 1000)
    for n in range(5):
        store.keep([turn(call(f"{n:030}"), reasoning="x" * 400)], "kimi", "A", "c")
    assert ["reasoning" in t for t in back(store, *asked)] == [False, False, False, True, True]
    store.keep([turn(call(f"{0:030}"), reasoning="x" * (thoughts.LONGEST_BYTES + 1))], "kimi", "A", "c")
    assert "reasoning" not in back(store, *asked)[0]
    now[0] = thoughts.AGE_SECONDS + 1
    assert not any("reasoning" in t for t in back(store, *asked))


# The whole way: a teacher that refuses a call without what came with it.


def strict(extra: dict[str, Any], on_call: dict[str, Any], id: str) -> Any:
    """Answers the first request with a call, and the next where all that it wrote is there."""

    def answer(body: dict[str, Any]) -> Script:
        turns = [m for m in body["messages"] if m.get("tool_calls")]
        if not turns:
            said = {"content": None, "tool_calls": [call(id, "{}", **on_call)], **extra}
            deltas = ({**said, "tool_calls": [{"index": 0, **said["tool_calls"][0]}]},)
            return Script(message=said, deltas=deltas, finish_reason="tool_calls")
        last = turns[-1]
        whole = {k: last.get(k) for k in extra} == extra
        whole &= {k: last["tool_calls"][0].get(k) for k in on_call} == on_call
        return Script(text="done") if whole else Script(status=400, error={"message": "what I wrote is missing"})

    return answer


KINDS = {
    "gemini-3-pro": ({}, SIGNED, LONG),
    "kimi-k3": ({"reasoning_content": "hm, files"}, {}, "functions.ls:0"),
    "deepseek-reasoner": ({"reasoning_content": "hm, files"}, {}, "call_00_abcdefghijklmnopqr1"),
}


@contextmanager
def proxy(folder: Path, teacher: FakeUpstream) -> Iterator[World]:
    declared = {"model": teacher.model, "url": f"{teacher.url}/v1", "usd_per_million": {"input": 1, "output": 1}}
    with world(folder, teacher=declared) as found:
        yield found


@pytest.fixture(params=KINDS)
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    teacher = FakeUpstream(request.param)
    teacher.answer = strict(*KINDS[request.param])
    with ExitStack() as stack:
        teacher.url = stack.enter_context(served(teacher))
        yield stack.enter_context(proxy(tmp_path, teacher))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_over_messages(front: World, thinking: bool, streamed: bool) -> None:
    client = anthropic.Anthropic(base_url=front.url, api_key="x", max_retries=0)
    given: dict[str, Any] = {"model": "locum/teacher", "max_tokens": 4000}
    given["tools"] = [{"name": "ls", "input_schema": LS}]
    if thinking:
        given["thinking"] = {"type": "enabled", "budget_tokens": 2000}

    def ask(*turns: Any) -> Any:
        if not streamed:
            return client.messages.create(messages=turns, **given)
        with client.messages.stream(messages=turns, **given) as stream:
            return stream.get_final_message()

    asked = {"role": "user", "content": "list"}
    first = ask(asked)
    (use,) = (b for b in first.content if b.type == "tool_use")
    results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "x"}]}
    assert ask(asked, {"role": "assistant", "content": first.content}, results).content[-1].text == "done"


@pytest.mark.parametrize("streamed", [False, True])
def test_over_chat_by_a_client_that_sends_back_what_openai_has(front: World, streamed: bool) -> None:
    client = OpenAI(base_url=f"{front.url}/v1", api_key="x", max_retries=0)
    tools: Any = [{"type": "function", "function": {"name": "ls", "parameters": LS}}]
    turns: list[Any] = [{"role": "user", "content": "list"}]
    if streamed:
        with client.chat.completions.stream(model="locum/teacher", messages=turns, tools=tools) as stream:
            made: Any = stream.get_final_completion().choices[0].message.tool_calls
    else:
        answer = client.chat.completions.create(model="locum/teacher", messages=turns, tools=tools)
        made = answer.choices[0].message.tool_calls
    turns += [turn(call(made[0].id, made[0].function.arguments))]
    turns += [{"role": "tool", "tool_call_id": made[0].id, "content": "x"}]
    found = client.chat.completions.create(model="locum/teacher", messages=turns, tools=tools)
    assert found.choices[0].message.content == "done"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
def test_over_responses(front: World, by_id: bool, streamed: bool) -> None:
    client = OpenAI(base_url=f"{front.url}/v1", api_key="x", max_retries=0)
    given: dict[str, Any] = {"model": "locum/teacher"}
    given["tools"] = [{"type": "function", "name": "ls", "parameters": LS, "strict": False}]
    if streamed:
        with client.responses.stream(input="list", **given) as stream:
            first: Any = stream.get_final_response()
    else:
        first = client.responses.create(input="list", **given)
    (made,) = (item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": made.call_id, "output": "x"}
    if by_id:
        found = client.responses.create(previous_response_id=first.id, input=[result], **given)
    else:
        said = {"type": "function_call", "call_id": made.call_id, "name": "ls", "arguments": made.arguments}
        found = client.responses.create(input=[{"role": "user", "content": "list"}, said, result], **given)
    assert found.output_text == "done"


@pytest.mark.parametrize("name", KINDS)
def test_a_proxy_that_knows_nothing_of_it_sends_what_the_provider_takes_instead(name: str, tmp_path: Path) -> None:
    """As after a restart, and for calls that another model made."""
    teacher = FakeUpstream(name)
    with served(teacher) as teacher.url, proxy(tmp_path, teacher) as front:
        result = {"role": "tool", "tool_call_id": LONG, "content": "x"}
        turns: list[Any] = [{"role": "user", "content": "list"}, turn(call()), result]
        client = OpenAI(base_url=f"{front.url}/v1", api_key="x", max_retries=0)
        client.chat.completions.create(
            model="locum/teacher", messages=[turns[0], turns[1], turns[2] | {"content": "x"}]
        )
        sent = teacher.seen[-1].body["messages"][1]
        if name.startswith("gemini"):
            signature = sent["tool_calls"][0]["extra_content"]["google"]["thought_signature"]
            assert signature == "skip_thought_signature_validator"
        else:
            assert sent["reasoning_content"] == " "
