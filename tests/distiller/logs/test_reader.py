from __future__ import annotations

import json
import random
from typing import Any

import pytest

from distiller.logs.calls import Found, LoggedCall, SkipReason, Source
from distiller.logs.reader import calls_in
from tests.distiller.logs.lines import (
    ASKED,
    AT,
    BATCH,
    BATCH_ANSWER,
    COMPLETION,
    EVERY,
    FINE_TUNING,
    LANGFUSE,
    LITELLM,
    OTLP,
    PAIR,
    RESPONSES,
    SAID,
    STORED,
    found_in,
)  # fmt: skip


def call(found: list[Found]) -> LoggedCall:
    (one,) = [each for each in found if isinstance(each, LoggedCall)]
    return one


@pytest.mark.parametrize("name", EVERY)
def test_a_call_reads_the_same_in_every_format(name: str) -> None:
    one = call(found_in(EVERY[name]))
    assert one.request["messages"] == ASKED
    assert (one.message, one.finish_reason) == (SAID, "stop")
    if name not in ("fine-tuning", "events"):
        assert (one.usage.input_tokens, one.usage.output_tokens, one.usage.estimated) == (12, 3, False)
    if name not in ("fine-tuning", "claude"):
        assert one.at == AT


def test_what_nobody_counted_is_estimated() -> None:
    usage = call(found_in(FINE_TUNING)).usage
    assert usage.estimated
    assert usage.input_tokens > 5
    assert usage.output_tokens == 3


def test_a_batch_is_joined_whichever_half_comes_first() -> None:
    for halves in ((BATCH, BATCH_ANSWER), (BATCH_ANSWER, BATCH)):
        one = call(found_in(*halves))
        assert (one.request["messages"], one.message, one.call_id) == (ASKED, SAID, "chatcmpl-1")


def test_halves_that_stay_alone_are_counted() -> None:
    assert found_in(BATCH, {**BATCH_ANSWER, "custom_id": "another"}) == [SkipReason.NO_ANSWER, SkipReason.NO_PARTNER]


def test_a_refused_request_of_a_batch_failed() -> None:
    refused = {**BATCH_ANSWER, "response": {"status_code": 400, "body": {"error": {"message": "no"}}}}
    assert found_in(BATCH, refused) == [SkipReason.FAILED]


def test_sources_costs_users_and_tasks_are_read() -> None:
    spend, observed = call(found_in(LITELLM)), call(found_in(LANGFUSE))
    assert (spend.source, spend.model, spend.user, spend.task) == (Source.LITELLM, "openai/gpt-5", "ann", "intents")
    assert str(spend.cost_usd) == "0.0004"
    assert (observed.source, observed.conversation, observed.task) == (Source.LANGFUSE, "s-1", "intents")
    assert spend.seconds == observed.seconds == 1.0
    assert call(found_in(STORED)).task == "intents"
    assert call(found_in(OTLP)).source is Source.OTEL


def test_spans_that_are_no_calls_are_counted() -> None:
    assert SkipReason.NO_CALL in found_in(OTLP)
    assert found_in({**LANGFUSE, "type": "SPAN"}) == [SkipReason.NO_CALL]
    assert found_in({**LITELLM, "call_type": "aembedding"}) == [SkipReason.NO_CALL]


def test_a_trace_with_its_observations_is_read() -> None:
    trace = {
        "id": "t",
        "name": "chat",
        "input": "hi",
        "output": "yo",
        "userId": "ann",
        "observations": [LANGFUSE, {"type": "SPAN"}],
    }
    found = found_in(trace)
    assert call(found).user == "ann"
    assert found[1:] == [SkipReason.NO_CALL]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [', SkipReason.BROKEN),
        (b"not json at all", SkipReason.BROKEN),
        (b"[1, 2]", SkipReason.UNKNOWN),
        (b'"text"', SkipReason.UNKNOWN),
        (b"null", SkipReason.UNKNOWN),
        (b"{}", SkipReason.UNKNOWN),
        (b'{"level": "info", "msg": "started"}', SkipReason.UNKNOWN),
        (b"\xff\xfe\x00", SkipReason.BROKEN),
        (json.dumps({**STORED, "choices": []}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({**STORED, "choices": [{"message": {"content": None}}]}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({**PAIR, "response": None}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({**PAIR, "response": {}}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({**PAIR, "response": {"error": {"message": "overloaded"}}}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({"messages": ASKED}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({"messages": [SAID]}).encode(), SkipReason.NO_REQUEST),
        (json.dumps({"messages": None, "response": COMPLETION}).encode(), SkipReason.NO_REQUEST),
        (json.dumps({**LITELLM, "messages": "{}", "response": "{}"}).encode(), SkipReason.NO_REQUEST),
        (json.dumps({**LITELLM, "status": "failure"}).encode(), SkipReason.FAILED),
        (json.dumps({**LANGFUSE, "output": None}).encode(), SkipReason.NO_ANSWER),
        (json.dumps({**LANGFUSE, "level": "ERROR"}).encode(), SkipReason.FAILED),
        (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", SkipReason.BROKEN),
        (b'{"messages": ' + b"[" * 400 + b"]" * 400 + b"}", SkipReason.TOO_DEEP),
    ],
)  # fmt: skip
def test_every_line_that_is_not_used_says_why(line: bytes, reason: SkipReason) -> None:
    assert found_in(line) == [reason]


@pytest.mark.parametrize(
    ("told", "at"),
    [
        (AT, AT), (int(AT * 1e3), AT), (int(AT * 1e6), AT), (int(AT * 1e9), AT), (str(int(AT)), AT),
        ("2025-10-09T08:53:20Z", AT), ("2025-10-09 08:53:20", AT), ("2025-10-09T10:53:20+02:00", AT),
        ("2025-10-09 08:53:20 UTC", AT), ("yesterday", None), (None, None), (True, None), (-5, None), (1e300, None),
        ("NaN", None), (10**400, None), ({}, None), ("9999-12-31T23:59:59Z", None),
    ],
)  # fmt: skip
def test_times_are_read_in_every_unit(told: Any, at: float | None) -> None:
    assert call(found_in({**FINE_TUNING, "timestamp": told})).at == at


def test_of_several_answers_the_first_counts_and_the_request_says_how_many() -> None:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": f"answer {i}"}, "finish_reason": "stop"}
        for i in (0, 1)
    ]
    one = call(found_in({"request": {**PAIR["request"], "n": 2}, "response": {**COMPLETION, "choices": choices}}))
    assert (one.message["content"], one.request["n"]) == ("answer 0", 2)


def test_tool_calls_and_their_results_keep_their_places() -> None:
    asked = [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Bern"}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}]}],
        },
    ]
    said = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "b", "name": "warn", "input": {}}],
        "stop_reason": "tool_use",
    }
    one = call(found_in({"request": {"model": "claude-opus-5.5", "messages": asked}, "response": said}))
    assert [m["role"] for m in one.request["messages"]] == ["user", "assistant", "tool"]
    assert one.request["messages"][2] == {"role": "tool", "tool_call_id": "a", "content": "rain"}
    assert one.message["tool_calls"][0]["function"] == {"name": "warn", "arguments": "{}"}
    assert one.finish_reason == "tool_calls"


def test_pictures_stay_parts() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    one = call(found_in({"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, url]}, SAID]}))
    assert one.request["messages"][0]["content"][1] == url


def test_halves_of_characters_and_numbers_that_are_none_do_not_lose_the_line() -> None:
    line = json.dumps({**PAIR, "latency": "NAN"}).replace('"NAN"', "NaN").replace("Where", "\\ud83d Where")
    one = call(found_in(line.encode()))
    assert one.message == SAID
    assert one.key


def test_the_same_call_has_the_same_key_and_others_have_others() -> None:
    one, again = call(found_in(STORED)), call(found_in({**STORED, "extra": 1}))
    other = call(found_in({**STORED, "id": "chatcmpl-2"}))
    assert one.key == again.key != other.key


def test_only_one_format_can_be_asked_for() -> None:
    line = json.dumps(STORED).encode()
    assert list(calls_in(line, Source.LITELLM)) == [SkipReason.OTHER_FORMAT]
    assert isinstance(next(calls_in(line, Source.OPENAI)), LoggedCall)


def test_rows_are_read_by_the_names_of_their_columns() -> None:
    one = call(
        list(
            calls_in(
                {
                    "Text": "Where is my card?",
                    "Label": "card_arrival",
                    "Model": "gpt-5",
                    "Timestamp": "2025-10-09T08:53:20Z",
                }
            )
        )
    )
    assert (one.source, one.request["messages"], one.message["content"]) == (Source.CSV, ASKED[1:], "card_arrival")
    assert (one.at, one.model) == (AT, "gpt-5")
    table = {k: v if isinstance(v, str) else json.dumps(v) for k, v in LITELLM.items()}
    assert call(list(calls_in(table))).source is Source.LITELLM
    assert list(calls_in({"text": "hi", "label": ""})) == [SkipReason.NO_ANSWER]
    assert list(calls_in({"a": "1", "b": "2"})) == [SkipReason.UNKNOWN]


def test_the_responses_form_is_read() -> None:
    assert call(found_in(RESPONSES)).call_id == "resp_1"


ODD: list[Any] = [
    None, True, -1, 1e308, 2**70, "", "x", "[]", "[1]", [], {}, [None], [[]], {"role": 1}, {"tool_calls": 5}, ["a"],
    {"content": [1, None, {"type": "text"}, {"type": {}}, {"type": "image", "source": 3}]}, {"messages": 5},
    [{"tool_calls": [1]}], {"parts": [1, {"type": "tool_call"}]}, {"choices": [5]}, [{"type": "function_call"}],
    {"stringValue": 3}, {"arrayValue": {"values": [{"kvlistValue": 5}]}},
]  # fmt: skip


def spoilt(value: Any, draw: random.Random) -> Any:
    """The same with something odd at some place."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.2:
        return draw.choice(ODD)
    at = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copied = value.copy()
    copied[at] = spoilt(value[at], draw)
    return copied


def test_whatever_stands_somewhere_a_line_is_read_or_says_why_not() -> None:
    draw, found = random.Random(0), list[Found]()
    for _ in range(3000):
        line = draw.choice([*EVERY.values(), BATCH, BATCH_ANSWER])
        for _ in range(draw.randint(1, 3)):
            line = spoilt(line, draw)
        found += list(calls_in(json.dumps(line).encode()))
    assert len(found) >= 3000
    assert len({one.key for one in found if isinstance(one, LoggedCall)}) > 100
