"""A response's output from a chat answer's pieces, in whatever pieces they come."""

from __future__ import annotations

from typing import Any

import orjson

from router.api.responses.answer import Turn, response_of, usage_of
from router.api.responses.items import new_ids
from router.api.responses.output import Output
from router.api.responses.sink import ResponseSink
from router.api.responses.store import Terms
from router.wire.chat import Headers
from router.wire.sse import encode

RESPONSE = "resp_" + "ab" * 24


def output(logprobs: bool = False) -> Output:
    return Output(new_ids(RESPONSE), logprobs)


def turn(**body: Any) -> Turn:
    return Turn(RESPONSE, {"model": "asked", "input": "hi", **body}, [], new_ids(RESPONSE), Terms("me", "p", "c", 1.0))


def types(events: list[dict[str, Any]]) -> list[str]:
    return [e["type"].removeprefix("response.") for e in events]


class Collected:
    """A client's side of a sink."""

    def __init__(self) -> None:
        self.started, self.data, self.ended = False, b"", False

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.started, self.data, self.ended = True, body, True

    async def send(self, data: bytes) -> None:
        self.data += data

    async def end(self, data: bytes = b"") -> None:
        self.data, self.ended = self.data + data, True

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.data.split(b"\n")
        return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def chunk(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": None} | {
        k: more.pop(k) for k in ("finish_reason", "index") if k in more
    }
    return encode({"model": "tiny", "choices": [choice], **more})


async def streamed(*pieces: bytes, last: bytes = b"", keeps: bool = True) -> tuple[Collected, list[Any]]:
    client, kept = Collected(), []

    async def keep(_: Turn, response: Any) -> bool:
        assert not client.ended
        kept.append(dict(response))
        return keeps

    sink = ResponseSink(client, turn(), keep)
    await sink.start(200, [])
    assert sink.started
    for piece in pieces:
        await sink.send(piece)
    await sink.end(last)
    return client, kept


async def test_nothing_is_shown_before_it_is_known_who_answers_but_comments_are() -> None:
    client, _ = await streamed(b": keep-alive\n\n", chunk({"role": "assistant", "content": ""}), b"data: [DONE]\n\n")
    assert client.data.startswith(b": keep-alive\n\nevent: response.created\n")
    assert client.events[0]["response"]["model"] == "tiny"
    assert b"[DONE]" not in client.data


async def test_events_may_come_in_any_batches() -> None:
    pieces = [chunk({"content": "a"}), chunk({"content": "b"}), chunk(finish_reason="stop"), b"data: [DONE]\n\n"]
    assert (await streamed(*pieces))[0].data == (await streamed(b"".join(pieces)))[0].data
    assert (await streamed(last=b"".join(pieces)))[0].data == (await streamed(*pieces))[0].data


async def test_other_choices_are_passed_over() -> None:
    client, _ = await streamed(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish_reason="stop"))
    assert client.events[-1]["response"]["output"][0]["content"][0]["text"] == "a"


async def test_the_usage_and_the_service_tier_come_at_the_end() -> None:
    usage = encode({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
    client, kept = await streamed(chunk({"content": "a"}, service_tier="flex"), chunk(finish_reason="stop"), usage)
    final = client.events[-1]["response"]
    assert (final["usage"]["total_tokens"], final["service_tier"]) == (9, "flex")
    assert kept == [final]


async def test_what_could_not_be_kept_says_so() -> None:
    client, _ = await streamed(chunk({"content": "a"}), keeps=False)
    assert client.events[-1]["response"]["store"] is False


async def test_a_stream_that_fails_before_its_first_word_still_begins_and_fails() -> None:
    error = {"message": "busy", "type": "x", "param": None, "code": "rate_limit_exceeded"}
    client, kept = await streamed(last=encode({"error": error}))
    assert types(client.events) == ["created", "in_progress", "error", "failed"]
    assert client.events[-1]["response"]["error"] == {"code": "rate_limit_exceeded", "message": "busy"}
    assert client.events[-1]["response"]["model"] == "asked"
    assert kept == []


def test_a_message_follows_thoughts_and_calls_follow_it() -> None:
    out = output()
    out.add({"delta": {"reasoning_content": "hm"}})
    out.add({"delta": {"content": "I look."}})
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    events = out.add({"delta": {"tool_calls": [call]}})
    assert types(events) == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
    ]
    assert types(out.close()) == ["function_call_arguments.done", "output_item.done"]
    assert [(i["type"], i["status"]) for i in out.items] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
    ]


def test_words_and_a_refusal_are_parts_of_one_message() -> None:
    out = output()
    out.add({"delta": {"content": "Well, "}})
    events = out.add({"delta": {"refusal": "no."}})
    assert [(e["type"], e["content_index"]) for e in events] == [
        ("response.output_text.done", 0),
        ("response.content_part.done", 0),
        ("response.content_part.added", 1),
        ("response.refusal.delta", 1),
    ]
    out.close()
    assert [p["type"] for p in out.items[0]["content"]] == ["output_text", "refusal"]


def test_a_call_without_an_id_gets_one() -> None:
    out = output()
    out.add({"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}})
    out.close()
    assert out.items[0]["call_id"].startswith("call_")
    assert (out.items[0]["name"], out.items[0]["arguments"]) == ("f", "{}")


def test_a_custom_call_streams_its_input() -> None:
    out = output()
    events = out.add({"delta": {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql"}}]}})
    events += out.add({"delta": {"tool_calls": [{"index": 0, "custom": {"input": "select 1"}}]}})
    events += out.close()
    assert types(events) == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert (out.items[0]["type"], out.items[0]["input"]) == ("custom_tool_call", "select 1")


async def test_calls_whose_pieces_are_mixed_come_one_after_the_other() -> None:
    def call(n: int, text: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": n, "id": f"c{n}", "type": "function", "function": {"arguments": text}}]}

    mixed = [call(0, "{"), call(1, '{"b":'), call(0, "}"), {"content": "a"}, call(1, "1}")]
    client, _ = await streamed(*map(chunk, mixed), chunk(finish_reason="tool_calls"))
    output = client.events[-1]["response"]["output"]
    assert [(i.get("call_id"), i.get("arguments")) for i in output] == [("c0", "{}"), ("c1", '{"b":1}'), (None, None)]
    done = [e["item"] for e in client.events if e["type"] == "response.output_item.done"]
    assert done == output


async def test_what_waited_is_not_told_where_the_stream_broke() -> None:
    call = {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}
    client, kept = await streamed(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}),
        chunk({"tool_calls": [call]}),
        last=encode({"error": {"message": "gone"}}),
    )
    assert [i["call_id"] for i in client.events[-1]["response"]["output"]] == ["a"]
    assert kept == []


def test_an_answer_without_words_says_an_empty_text_unless_it_was_cut() -> None:
    whole = {"model": "m", "choices": [{"message": {"content": None}, "finish_reason": "stop"}]}
    assert response_of(turn(), whole)["output"][0]["content"][0]["text"] == ""
    cut = {"message": {"content": "", "reasoning_content": "hm"}, "finish_reason": "length"}
    assert [i["type"] for i in response_of(turn(), whole | {"choices": [cut]})["output"]] == ["reasoning"]


def test_token_probabilities_have_every_field() -> None:
    top = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "ä", "logprob": -3}]
    out = output(logprobs=True)
    out.add(
        {"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": top}]}}
    )
    out.close()
    (found,) = out.items[0]["content"][0]["logprobs"]
    assert found == {
        "token": "a",
        "bytes": [97],
        "logprob": -0.1,
        "top_logprobs": [
            {"token": "a", "bytes": [97], "logprob": -0.1},
            {"token": "ä", "bytes": [195, 164], "logprob": -3},
        ],
    }


def test_token_counts_are_renamed_with_their_details() -> None:
    assert usage_of(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
    ) == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 15,
    }
    assert usage_of(None) is None
