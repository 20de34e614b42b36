from __future__ import annotations

import math
from typing import Any

import pytest

from router.heads.fit import fit_heads
from router.heads.heads import LabelHeads
from router.heads.wire import chunks, completion
from router.wire.assembly import Assembly, assembled
from tests.router.heads.test_files import ROUTE, asked, fitted


@pytest.fixture(scope="module")
def heads() -> LabelHeads:
    return fitted()[0]


def test_an_answer_is_a_chat_completion(heads: LabelHeads) -> None:
    found = completion(heads, asked(ROUTE, "word1 parcel word2"), "label-head")
    assert found is not None
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "delivery\n"}
    assert (choice["finish_reason"], found["model"], found["object"]) == ("stop", "label-head", "chat.completion")
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == "delivery\n"
    reply = heads.reply(asked(ROUTE, "word1 parcel word2"))
    assert reply is not None
    assert sum(entry["logprob"] for entry in entries) == pytest.approx(math.log(reply.score))
    usage = found["usage"]
    assert usage["completion_tokens"] == len(entries) == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3 > 3


def test_a_stream_says_the_same(heads: LabelHeads) -> None:
    whole = completion(heads, asked(ROUTE, "word1 parcel word2"), "label-head")
    assert whole is not None
    found = Assembly()
    for chunk in chunks(whole):
        found.add(chunk)
    once = assembled(whole["choices"][0])
    assert (found.message, found.finish_reason, found.tokens) == (once.message, once.finish_reason, 3)
    assert found.usage is not None


@pytest.mark.parametrize(
    ("field", "value", "answers"),
    [
        ("max_tokens", 2, False), ("max_tokens", 3, True), ("max_completion_tokens", 1, False),
        ("stop", "liver", False), ("stop", ["x", "\n"], False), ("stop", ["x"], True), ("stop", None, True),
        ("temperature", 2, True), ("seed", 1, True),
    ],
)  # fmt: skip
def test_an_answer_that_a_limit_would_cut_is_none(heads: LabelHeads, field: str, value: Any, answers: bool) -> None:
    found = completion(heads, asked(ROUTE, "word1 parcel word2", **{field: value}), "label-head")
    assert (found is not None) is answers


def test_a_call_is_answered_as_a_call_whole_and_streamed() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("refund", "track")]
    bodies, messages = [], []
    for n in range(120):
        said, name = ("money", "refund") if n % 2 else ("parcel", "track")
        bodies.append(asked(ROUTE, f"word{n % 7} {said} word{n % 5}", tools=tools))
        function = {"name": name, "arguments": f'{{"urgent": {"true" if n % 2 else "false"}}}'}
        call = {"id": f"call_{n}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    found, _ = fit_heads(bodies, messages, None)
    whole = completion(found, asked(ROUTE, "word1 parcel word2", tools=tools), "label-head")
    assert whole is not None
    (choice,) = whole["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "track", "arguments": '{"urgent": false}'}
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["id"].startswith("call_") and call["id"] not in {f"call_{n}" for n in range(120)}
    streamed = Assembly()
    for chunk in chunks(whole):
        streamed.add(chunk)
    assert streamed.message["tool_calls"][0]["function"] == call["function"]
    assert streamed.finish_reason == "tool_calls"
    assert completion(found, asked(ROUTE, "word1 parcel word2"), "label-head") is None, "no tools were offered"
