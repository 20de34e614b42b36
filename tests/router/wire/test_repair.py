"""Answers that are a little wrong, told as OpenAI's clients read them; what is right stays as it came."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from router.wire.assembly import Assembly, assembled
from router.wire.form import AnswerTerms
from router.wire.rationale import parted
from router.wire.repair import Repair, mended

TERMS = AnswerTerms("label")
HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
LOGPROBS = {"content": [{"token": "one", "logprob": -0.5, "top_logprobs": []}]}
ROLE: dict[str, Any] = {"role": "assistant", "content": ""}


def chunk(delta: Any, finish: Any = None, choice: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}], **more}


def call(index: int, name: str | None = None, arguments: str = "", id_: str | None = None) -> dict[str, Any]:
    if name is None:
        return {"index": index, "function": {"arguments": arguments}}
    return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def told(*chunks: dict[str, Any], terms: AnswerTerms = TERMS) -> tuple[list[dict[str, Any]], list[bool], Assembly]:
    """(the chunks as they leave, with those at the end; which of them were told anew; what they add up to)."""
    first = Assembly()
    repair, left = Repair(first, terms), [*map(deepcopy, chunks)]
    changed = [repair.take(c) for c in left]
    return [*left, *repair.rest()], changed, first


def test_what_is_right_stays_as_it_came() -> None:
    right = [
        chunk(ROLE),
        chunk({"content": "one"}, choice={"logprobs": LOGPROBS}),
        chunk({"content": " two"}, choice={"logprobs": None}),
        chunk({"refusal": None, "content": " three"}),
        chunk({"tool_calls": [call(0, "look", "", "a")]}),
        chunk({"tool_calls": [call(0, None, "{}")]}),
        chunk({}, "tool_calls"),
        {**HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    ]
    left, changed, said = told(*right)
    assert left == right
    assert not any(changed)
    assert said.message["content"] == "one two three"
    assert said.message["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert (said.logprobs, said.tokens, said.whole) == ([-0.5], 5, True)


@pytest.mark.parametrize(("word", "end"), [("eos", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter")])
def test_a_stream_ends_in_openais_words_and_goes_on_while_its_provider_says_that_it_does(word: str, end: str) -> None:
    left, _, said = told(chunk(ROLE, "null"), chunk({"content": "one"}, ""), chunk({"content": " two"}, word))
    assert [c["choices"][0]["finish_reason"] for c in left] == [None, None, end]
    assert (said.message["content"], said.finish_reason, said.whole) == ("one two", end, True)
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": word}]}
    whole = assembled(answer["choices"][0])
    assert mended(answer, [whole], TERMS) and answer["choices"][0]["finish_reason"] == end == whole.finish_reason


def test_thoughts_in_a_stream_are_parted_from_the_whole_of_it() -> None:
    pieces = ["<th", "ink>2 an", "d 2</thi", "nk>\n\nIt is", " 4."]
    _, _, said = told(*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop"))
    assert parted(said.message["content"])[:2] == ("2 and 2", "It is 4.")


ORDINARY = chunk({"content": "one"})


@pytest.mark.parametrize(
    "odd",
    [
        {k: v for k, v in ORDINARY.items() if k != "id"},
        ORDINARY | {"created": "now"},
        ORDINARY | {"model": None},
        ORDINARY | {"usage": {"prompt_tokens": "1"}},
        ORDINARY | {"choices": [{"delta": {"content": "one"}, "finish_reason": None}]},
        chunk({"content": "one"}, choice={"index": "0"}),
        chunk({"content": "one"}, choice={"index": None}),
        chunk({"content": "one", "role": "assistant"}),
        chunk({"content": [{"type": "text", "text": "one"}]}),
        chunk({"content": "one"}, 5),
        chunk({"content": "one"}, choice={"logprobs": []}),
        chunk({"content": "one"}, choice={"logprobs": {"content": [{"token": 1, "logprob": -1}]}}),
        chunk(None, choice={"message": {"content": "one"}}),
        ORDINARY | {"choices": [None, *ORDINARY["choices"]]},
    ],
)
def test_an_ordinary_chunk_with_one_thing_odd_is_told_anew_and_says_the_same(odd: dict[str, Any]) -> None:
    left, changed, said = told(chunk(ROLE), odd, chunk({}, "stop"))
    assert changed == [False, True, False]
    assert said.message["content"] == "one"
    choice = left[1]["choices"][0]
    assert (choice["index"], choice["delta"], choice["finish_reason"]) == (0, {"content": "one"}, None)
    assert {key: type(left[1][key]) for key in HEAD} == {key: type(value) for key, value in HEAD.items()}


def test_text_alone_says_who_speaks_where_nobody_did_before() -> None:
    left, changed, _ = told(ORDINARY, ORDINARY, chunk({}, "stop"))
    assert changed == [True, False, False]
    assert left[0]["choices"][0]["delta"] == {"role": "assistant", "content": "one"}


def test_each_choice_is_told_apart() -> None:
    second = chunk({"content": "two"}, choice={"index": 1})
    left, changed, said = told(
        chunk(ROLE), second, ORDINARY, chunk({}, "stop"), terms=AnswerTerms.of({"n": 2}, "label")
    )
    assert changed == [False, True, False, False]
    assert left[1]["choices"][0]["delta"] == {"role": "assistant", "content": "two"}
    assert said.message["content"] == "one"
    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in left[4:]] == [(1, "stop")]


@pytest.mark.parametrize(
    ("late", "whole"),
    [
        (chunk({"content": " more"}), False),
        (chunk({"content": " more"}, "stop"), False),
        (chunk({"tool_calls": [call(0, "look", "{}", "a")]}, "tool_calls"), False),
        (chunk({"audio": {"transcript": "more"}}), False),
        (chunk({"content": "other"}, choice={"index": 1}), False),
        (chunk({"content": "other"}, choice={"index": -1}), False),
        (chunk({"role": "assistant", "content": ""}, "stop"), True),  # said twice, as some do
    ],
)
def test_nothing_is_told_of_a_choice_that_has_ended_or_that_nobody_asked_for(late: dict[str, Any], whole: bool) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    left, _, said = told(chunk(ROLE), ORDINARY, chunk({}, "stop"), {**late, "usage": usage})
    assert left[3:] == [{**HEAD, "choices": [], "usage": usage}]
    assert (said.message, said.whole, said.usage_told) == ({"role": "assistant", "content": "one"}, whole, usage)


def test_a_stream_is_over_once_each_choice_that_was_asked_for_has_ended() -> None:
    repair = Repair(Assembly(), AnswerTerms.of({"n": 2}, "label"))
    for at in (0, 1):
        assert not repair.over
        repair.take(chunk({"content": "one"}, "stop", {"index": at}))
    assert repair.over


def test_usage_and_model_count_wherever_they_stand() -> None:
    told_usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    _, _, said = told(chunk(ROLE), ORDINARY | {"model": "m2"}, chunk({"content": "x"}, choice={"usage": told_usage}))
    assert (said.model, said.usage_told) == ("m", told_usage)


def test_what_an_ordinary_chunk_tells_beside_its_text_counts() -> None:
    beside = ORDINARY | {"service_tier": "flex", "x_groq": {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}}
    left, changed, said = told(chunk(ROLE), beside, chunk({}, "stop"))
    assert not any(changed)
    assert left[1] == beside
    assert said.service_tier == "flex"
    assert said.usage_told is not None and said.usage_told["prompt_tokens"] == 5


def test_what_lacks_its_end_and_its_counts_gets_them() -> None:
    in_choice = chunk({"content": "one"}, choice={"usage": {"prompt_tokens": 1}})
    left, _, _ = told(chunk(ROLE), in_choice, terms=AnswerTerms("label", usage=True))
    assert left[2]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert left[3] == {
        **HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1},
    }  # fmt: skip


def test_a_list_of_a_providers_own_leaves_as_it_came_and_what_goes_on_with_it_gets_its_places() -> None:
    one, two, three = ({"type": "image_url", "n": n} for n in range(3))
    left, changed, _ = told(chunk(ROLE), chunk({"images": [one]}), chunk({"images": [two, three]}))
    assert changed == [False, False, True]
    assert left[1]["choices"][0]["delta"] == {"images": [one]}
    assert left[2]["choices"][0]["delta"]["images"] == [two | {"index": 1}, three | {"index": 2}]


def test_two_calls_of_one_index_get_each_its_own() -> None:
    first, second = call(0, "look", '{"x":1}', "a"), call(0, "look", '{"x":2}', "b")
    left, changed, _ = told(chunk(ROLE), chunk({"tool_calls": [first]}), chunk({"tool_calls": [second]}))
    assert changed == [False, False, True]
    assert left[2]["choices"][0]["delta"]["tool_calls"] == [second | {"index": 1}]
    assert left[3]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_promise_of_calls_that_are_none_is_not_kept_as_an_answer_to_learn_from() -> None:
    left, _, said = told(chunk(ROLE), ORDINARY, chunk({}, "tool_calls"))
    assert left[2]["choices"][0]["finish_reason"] == "stop"
    assert (said.finish_reason, said.whole) == ("stop", False)


@pytest.mark.parametrize(("choices", "whole"), [(None, True), ("x", False), ({}, False)])
def test_choices_that_are_none_say_nothing(choices: Any, whole: bool) -> None:
    left, changed, said = told(chunk(ROLE), {**HEAD, "choices": choices})
    assert changed == [False, True]
    assert left[1]["choices"] == []
    assert said.whole is whole


def answer(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**HEAD, "object": "chat.completion", "choices": [choice], **more}


def mend(given: dict[str, Any], terms: AnswerTerms = TERMS) -> tuple[dict[str, Any], bool]:
    found = deepcopy(given)
    return found, mended(found, [assembled(choice) for choice in found["choices"]], terms)


@pytest.mark.parametrize(
    "right",
    [
        answer({"role": "assistant", "content": "one"}),
        answer({"role": "assistant", "content": None, "refusal": "no", "annotations": []}),
        answer({"role": "assistant", "content": None, "tool_calls": [call(0, "look", "{}", "a")]}, "tool_calls"),
    ],
)
def test_a_whole_answer_that_is_right_stays_as_it_came(right: dict[str, Any]) -> None:
    assert mend(right) == (right, False)


@pytest.mark.parametrize(
    ("wrong", "message", "finish"),
    [
        (answer({"content": "one"}), {"role": "assistant", "content": "one"}, "stop"),
        (answer({"role": "assistant", "content": "one"}, None), {"role": "assistant", "content": "one"}, "stop"),
        (answer({"role": "assistant", "content": ["one"]}), {"role": "assistant", "content": "one"}, "stop"),
        (
            answer({"role": "assistant", "function_call": {"name": "look", "arguments": {}}}, "function_call"),
            {"function": {"name": "look", "arguments": "{}"}},
            "tool_calls",
        ),
    ],
)
def test_a_whole_answer_that_is_a_little_wrong_is_told_anew(wrong: Any, message: Any, finish: str) -> None:
    found, changed = mend(wrong)
    choice = found["choices"][0]
    assert changed
    assert choice["finish_reason"] == finish
    if "function" in message:
        (said,) = choice["message"]["tool_calls"]
        assert said["id"].startswith("call_") and said["function"] == message["function"]
    else:
        assert choice["message"] == message


def test_who_knows_functions_alone_gets_a_function() -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": {"x": 1}}}
    found, _ = mend(answer(called, "function_call"), AnswerTerms("label", older=True))
    assert found["choices"][0]["message"]["function_call"] == {"name": "look", "arguments": '{"x":1}'}
    assert "tool_calls" not in found["choices"][0]["message"]
