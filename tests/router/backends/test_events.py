"""A backend's stream as events: when it has begun, what ends it, and errors told inside it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.backends import events
from router.backends.base import Backend
from router.backends.events import EventStream
from router.contracts.decision import Tier
from router.errors import (
    UpstreamBrokeOff,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamUnable,
    UpstreamUnusable,
)
from router.wire.sse import encode
from tests.fakes import collected

BACKEND = Backend(Tier.TEACHER, "the teacher", "big", "http://127.0.0.1:9/v1", timeout_seconds=1, key="hunter2hunter2")
DONE = b"data: [DONE]\n\n"


class Scripted:
    """A stream of given pieces (``router.backends.base.Stream``)."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces, self.closed = list(pieces), False

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def close(self, *, done: bool = False) -> None:
        self.closed = True


def chunk(delta: dict[str, Any] | None = None, finish: Any = None, **more: Any) -> bytes:
    return encode({"model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


ROLE, WORD, STOP = chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk(finish="stop")
EMPTY = chunk({"content": "", "refusal": None, "tool_calls": [], "reasoning_content": ""})
USAGE = encode({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
QUIET = b": keep-alive\n\n"


class Reading:
    """Reads a stream to its end, and counts its failures."""

    def __init__(self, *pieces: bytes) -> None:
        self.failures, self.got = 0, b""
        self.events = EventStream(BACKEND, Scripted(*pieces), self._failed)

    def _failed(self) -> None:
        self.failures += 1

    async def begin(self) -> Reading:
        await self.events.begin()
        return self

    async def all(self) -> bytes:
        while batch := await self.events.read():
            self.got += batch
            if self.events.done:
                break
        return self.got


@pytest.mark.parametrize(
    "word",
    [
        WORD,
        STOP,
        chunk({"refusal": "no"}),
        chunk({"reasoning": "hm"}),
        chunk({"content": [{"type": "text", "text": "a"}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        chunk({"images": [1]}),
    ],
)
async def test_a_stream_has_begun_with_its_first_word(word: bytes) -> None:
    stream = Scripted(ROLE, QUIET, EMPTY, USAGE, word, b"never read")
    await (events := EventStream(BACKEND, stream, lambda: None)).begin()
    assert await events.read() == ROLE + QUIET + EMPTY + USAGE + word


@pytest.mark.parametrize(
    "pieces",
    [(), (DONE,), (ROLE, DONE), (QUIET, QUIET), (ROLE, USAGE, DONE), (ROLE, b"data: {broken\n\n", DONE), (b"  \n",)],
)
async def test_an_end_without_a_word_is_a_failure(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(UpstreamError, match="before it said anything"):
        await Reading(*pieces).begin()


ERRORS: list[tuple[Any, type[Exception]]] = [
    ({"error": {"message": "no images", "type": "BadRequestError", "code": 400}}, UpstreamRefused),
    ({"error": {"message": "no images", "code": "400"}}, UpstreamRefused),
    ({"object": "error", "message": "no images", "type": "invalid_request_error", "code": None}, UpstreamRefused),
    ({"error": {"message": "no images", "type": "content_filter"}}, UpstreamRefused),
    ({"error": {"message": "no images", "type": None, "code": "content_policy_violation"}}, UpstreamRefused),
    ({"error": {"message": "no images", "code": "context_length_exceeded"}}, UpstreamUnable),
    ({"error": {"message": "later", "code": 429}}, UpstreamRateLimited),
    ({"error": {"message": "later", "type": "rate_limit_error"}}, UpstreamRateLimited),
    ({"error": {"message": "who?", "code": 401}}, UpstreamUnusable),
    ({"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}, UpstreamUnusable),
    ({"error": {"message": "died", "type": "InternalServerError", "code": 500}}, UpstreamError),
    ({"error": "died"}, UpstreamError),
    ({"error": ["died"]}, UpstreamError),
    ({"error": True}, UpstreamError),
    ({"detail": "died"}, UpstreamError),
    ({"detail": [{"loc": ["body"], "msg": "died"}]}, UpstreamError),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "died"}}, UpstreamError),
    ({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}, UpstreamError),
    ({"choices": [{"index": 0, "delta": {}, "error": {"message": "died", "code": 502}}]}, UpstreamError),
    ({"choices": [{"index": 0, "delta": {"error": {"message": "died", "code": 502}}}]}, UpstreamError),
    ({"choices": [{"index": 0, "delta": {"role": "error", "content": "died"}}]}, UpstreamError),
    ({"choices": [{"index": 0, "delta": {}, "finish_reason": "ERROR"}]}, UpstreamError),
    ({"message": "died", "code": 500}, UpstreamError),
    ({"errors": [{"message": "died"}]}, UpstreamError),
    ({"Error": {"message": "died"}}, UpstreamError),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS)
@pytest.mark.parametrize("before", [(), (ROLE,), (QUIET, ROLE, USAGE)])
async def test_an_error_before_the_first_word_is_sorted_by_whose_fault_it_is(
    error: Any, kind: type[Exception], before: tuple[bytes, ...]
) -> None:
    for pieces in ([*before, encode(error), DONE], [b"".join([*before, encode(error), DONE])]):
        with pytest.raises(UpstreamError if issubclass(kind, UpstreamError) else UpstreamRefused) as told:
            await Reading(*pieces).begin()
        assert type(told.value) is kind
        if isinstance(told.value, UpstreamRefused):
            assert orjson.loads(told.value.reply_body)["error"]["message"] == "no images"


@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
async def test_an_error_in_the_middle_follows_what_was_said_before_it(error: Any) -> None:
    for pieces in ([WORD, encode(error), DONE], [WORD + encode(error) + DONE]):
        reading = await Reading(*pieces).begin()
        with pytest.raises(UpstreamBrokeOff) as told:
            await reading.all()
        assert (reading.got, reading.failures) == (WORD, 1)
        assert set(told.value.body()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "event",
    [
        b"event: error\ndata: gone\n\n",
        b'event: error\r\ndata: "gone"\r\n\r\n',
        b'{"error": {"message": "gone"}}\n\n',
        b'event:error\ndata: {"message": "gone"}\n\n',
        b'data: {"error":\ndata: "gone"}\n\n',
        b'data: {"error": "gone", "x": NaN}\n\n',
        b'data: {"\\u0065rror": {"message": "gone"}}\n\n',
        b'data: {"choices": [], "err\\u006fr": {"message": "gone"}}\n\n',
        b'error: {"message": "gone", "code": 500}\n\n',
        b"Error: gone\n\n",
        b'error: {"message": "gone"}',
    ],
)
async def test_an_error_event_has_several_forms(event: bytes) -> None:
    reading = await Reading(WORD, event).begin()
    with pytest.raises(UpstreamBrokeOff) as told:
        await reading.all()
    assert "gone" in told.value.body()["error"]["message"]


async def test_no_key_leaves_with_an_errors_words() -> None:
    words = f"bad key {BACKEND.key} of sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    reading = await Reading(WORD, encode({"error": {"message": words}})).begin()
    with pytest.raises(UpstreamBrokeOff) as told:
        await reading.all()
    assert "bad key" in str(told.value.body())
    assert BACKEND.key not in str(told.value.body())
    assert "abcdefghij" not in str(told.value.body())


async def test_no_answer_and_no_words_about_the_account_tell_of_it() -> None:
    reading = await Reading(chunk({"content": f"my key is {BACKEND.key}"}), chunk({}, "stop"), DONE).begin()
    told = await reading.all()
    assert b"my key is [SECRET]" in told and (BACKEND.key or "").encode() not in told
    words = {"message": "Project proj_abc does not have access to it", "type": "invalid_request_error", "code": 400}
    reading = await Reading(WORD, encode({"error": words})).begin()
    with pytest.raises(UpstreamBrokeOff) as broken:
        await reading.all()
    assert "proj_abc" not in str(broken.value.body())


@pytest.mark.parametrize(
    "said",
    [
        chunk({"content": 'the word "error" and {"error": 1}, "detail"'}),
        chunk({"content": "a"}, error=None),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"error": "x", "detail": "y"}'}}]}),
        b"event: message\n" + WORD,
        b"event: completion.chunk\r\n" + WORD.strip() + b"\r\n\r\n",
    ],
)
async def test_words_about_errors_are_none(said: bytes) -> None:
    reading = await Reading(said, STOP, DONE).begin()
    assert await reading.all() == said + STOP + DONE


MESSAGE = {
    "role": "assistant",
    "content": "a",
    "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
}
WHOLE = {
    "id": "x",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": MESSAGE,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [{"token": "a", "logprob": -1}]},
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


async def test_a_whole_answer_where_a_stream_was_asked_for_becomes_one() -> None:
    body = orjson.dumps(WHOLE)
    for pieces in ([body], [b"\xef\xbb\xbf\n " + body], [body[i : i + 7] for i in range(0, len(body), 7)]):
        reading = await Reading(*pieces).begin()
        found = collected(await reading.all())
        assert reading.events.done
        assert found.message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
        assert (found.message["content"], found.finish_reason, found.logprobs) == ("a", "tool_calls", [-1.0])
        assert found.usage is not None
        assert (found.usage.usage.input_tokens, found.usage.usage.output_tokens) == (5, 2)


@pytest.mark.parametrize(("error", "kind"), ERRORS)
async def test_a_whole_error_where_a_stream_was_asked_for_is_one(error: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await Reading(orjson.dumps(error)).begin()


@pytest.mark.parametrize("body", [b"{}", b"{", b'{"choices": []}', b'{"choices": [{"message": 5}]}', b'{"choices": 5}'])
async def test_no_answer_at_all_is_a_failure(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        await Reading(body).begin()


async def test_one_event_has_a_longest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_EVENT_BYTES", 1000)
    for opening in ([b"data: "], [b"{"], [ROLE]):
        with pytest.raises(UpstreamError, match="more than"):
            await Reading(*opening, *[b"x" * 100] * 20).begin()
    reading = await Reading(WORD, *[b"x" * 100] * 20).begin()
    with pytest.raises(UpstreamError, match="more than"):
        await reading.all()
    assert reading.failures == 1


async def test_one_event_holds_no_more_values_than_are_ever_said() -> None:
    many = b'data: {"choices": [{"delta": {"x": [' + b"[]," * 400_000 + b"0]}}]}\n\n"
    for opening in (many, many[6:]):
        with pytest.raises(UpstreamError, match="more than 300,000 values"):
            await Reading(opening).begin()
    reading = await Reading(WORD, many).begin()
    with pytest.raises(UpstreamError, match="more than 300,000 values"):
        await reading.all()
    assert reading.failures == 1


async def test_what_was_cut_in_the_middle_of_an_event_is_left_out() -> None:
    for cut in (WORD[:-20], b"data: [DO"):
        assert await (await Reading(WORD, cut).begin()).all() == WORD
    assert await (await Reading(WORD, STOP.strip()).begin()).all() == WORD + STOP
