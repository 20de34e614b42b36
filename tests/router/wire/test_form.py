"""What names an answer, why it ends, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from router.wire.calls import Call
from router.wire.form import (
    AnswerTerms,
    are_probable,
    counted,
    fresh_head,
    head_of,
    is_counted,
    is_headed,
    own_id,
    probable,
)
from router.wire.sse import LEAST_LOGPROB

HEAD = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}


@pytest.mark.parametrize(
    ("told", "calls", "terms", "finish"),
    [
        ("stop", False, {}, "stop"),
        ("length", True, {}, "length"),
        ("stop", True, {}, "tool_calls"),
        ("stop", True, {"tool_choice": "required"}, "stop"),
        ("stop", True, {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "stop"),
        ("function_call", True, {}, "tool_calls"),
        ("tool_calls", False, {}, "stop"),
        ("function_call", False, {}, "stop"),
        ("eos", False, {}, "stop"),
        ("null", False, {}, None),
        ("", False, {}, None),
        (None, True, {}, None),
        (5, True, {}, None),
        (["stop"], False, {}, None),
    ],
)
def test_an_answer_ends_for_what_it_holds(told: Any, calls: bool, terms: dict[str, Any], finish: str | None) -> None:
    assert AnswerTerms.of(terms, "m").finish(told, calls) == finish


def test_a_function_of_the_older_kind_keeps_its_end() -> None:
    terms = AnswerTerms.of({"functions": [{"name": "f"}]}, "m")
    assert terms.older
    assert terms.finish("function_call", True, older=True) == "function_call"
    assert not AnswerTerms.of({"functions": [{"name": "f"}], "tools": [{}]}, "m").older


@pytest.mark.parametrize("lacks", HEAD)
def test_what_names_an_answer_is_put_where_it_lacks_or_is_of_another_type(lacks: str) -> None:
    otherwise = fresh_head("chat.completion", "label")
    assert is_headed(HEAD) and head_of(HEAD, otherwise) == HEAD
    for odd in ({k: v for k, v in HEAD.items() if k != lacks}, HEAD | {lacks: None}, HEAD | {lacks: [1]}):
        assert not is_headed(odd)
        assert head_of(odd, otherwise) == HEAD | {lacks: otherwise[lacks]}


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 3)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": "3"}, (1, 2, 3)),
        ({"prompt_tokens": -1, "completion_tokens": 2.5, "total_tokens": 9}, (6, 3, 9)),
        ({"total_tokens": 9}, (0, 0, 9)),
        ({"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 500}, (1500, 100, 1600)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 5, "output_tokens": 2}, (5, 2, 7)),
        ({"prompt_tokens": True, "completion_tokens": None, "more": {}}, (0, 0, 0)),
    ],
)
def test_counts_are_numbers(usage: dict[str, Any], told: tuple[int, int, int]) -> None:
    assert not is_counted(usage)
    found = counted(usage)
    assert found is not None and (is_counted(found) or not found["prompt_tokens"])
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == told
    assert found.keys() >= usage.keys()


@pytest.mark.parametrize("usage", [None, {}, [], "5", 5])
def test_no_counts_are_none(usage: Any) -> None:
    assert not is_counted(usage)
    assert counted(usage) is None


@pytest.mark.parametrize(
    ("logprobs", "told"),
    [
        ([], None),
        ("NaN", None),
        ({"content": "x"}, None),
        ({"content": [None, {"token": 5, "logprob": -1}, {"token": "a", "logprob": -1}]}, ["a"]),
        ({"content": [{"token": "a", "logprob": None}]}, ["a"]),
    ],
)
def test_of_tokens_what_can_be_read_is_told(logprobs: Any, told: list[str] | None) -> None:
    assert not are_probable(logprobs)
    found = probable(logprobs)
    assert (found and [t["token"] for t in found["content"]]) == told
    assert are_probable(found)


def test_a_probability_that_is_none_is_the_least() -> None:
    top = [{"token": "b", "logprob": None}, 5]
    found = probable({"content": [{"token": "a", "logprob": "x", "top_logprobs": top}]})
    assert found == {
        "content": [
            {"token": "a", "logprob": LEAST_LOGPROB, "top_logprobs": [{"token": "b", "logprob": LEAST_LOGPROB}]}
        ]
    }


def test_each_call_has_an_id_that_no_other_has() -> None:
    calls = [Call(id="a"), Call(id=None), Call(id="a"), Call(id="b")]
    for at, call in enumerate(calls):
        own_id(call, calls[:at])
    ids = [call.own_id or call.id for call in calls]
    assert (ids[0], ids[3]) == ("a", "b")
    assert len(set(ids)) == 4
