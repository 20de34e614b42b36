"""What a backend refuses of what we add or rename is learned from its words, and nothing else is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.backends.refusals import PLAIN, Spelling
from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamUnable

MESSAGES = [{"role": "user", "content": "hi"}]
LOGPROBS = {"logprobs": True, "top_logprobs": 3}


def refusal(message: str, **more: Any) -> UpstreamRefused:
    body = orjson.dumps({"error": {"message": message, **more}})
    return UpstreamRefused("no", reply_status=400, reply_body=body)


def after(error: UpstreamError | UpstreamRefused, body: dict[str, Any], wished: dict[str, Any] | None = None) -> Any:
    """What is asked next; None where nothing else is worth trying."""
    body, wished = {"messages": MESSAGES, **body}, wished or {}
    spelling = PLAIN.after(error, PLAIN.spelled(body, wished), wished)
    if spelling is PLAIN:
        return None
    return {name: value for name, value in spelling.spelled(body, wished).items() if name != "messages"}


@pytest.mark.parametrize(
    "error",
    [
        refusal("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        refusal("Unrecognized request argument supplied: max_tokens"),
        refusal("", detail=[{"type": "extra_forbidden", "loc": ["body", "max_tokens"]}]),
        UpstreamError("big answered 500", said=b"unknown field max_tokens"),
    ],
)
def test_a_limit_goes_by_the_name_that_the_backend_knows(error: UpstreamError | UpstreamRefused) -> None:
    assert after(error, {"max_tokens": 5}) == {"max_completion_tokens": 5}


def test_both_ways() -> None:
    error = refusal("max_completion_tokens: Extra inputs are not permitted")
    assert after(error, {"max_completion_tokens": 5}) == {"max_tokens": 5}
    assert Spelling(limit="max_tokens").spelled({"max_tokens": 4, "max_completion_tokens": 5}, {}) == {"max_tokens": 4}


def test_a_backend_that_knows_neither_name_is_not_asked_for_ever() -> None:
    body = {"max_tokens": 5}
    known = PLAIN.after(refusal("unknown parameter max_tokens"), body, {})
    assert known.after(refusal("unknown parameter max_completion_tokens"), known.spelled(body, {}), {}) is known


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        "max_tokens must be at least 1",
        "Invalid value for 'temperature'",
        "'user' must be a string",
    ],
)
def test_a_field_that_is_refused_for_its_value_is_the_clients_to_hear(message: str) -> None:
    assert after(refusal(message), {"max_tokens": 100_000, "temperature": 9, "user": 5}) is None


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs"])
def test_what_nobody_needs_is_left_out_for_whatever_reason(name: str) -> None:
    assert after(refusal(f"{name} are not for you"), {}, LOGPROBS) == {}
    assert after(UpstreamError("500", said=f"`{name}` failed".encode()), {"user": "me"}, LOGPROBS) == {"user": "me"}


def test_but_what_the_client_asked_for_is_not() -> None:
    assert after(refusal("logprobs is not supported with this model"), dict(LOGPROBS)) is None
    learned = Spelling(without=frozenset(LOGPROBS))
    assert learned.spelled(LOGPROBS, {}) == LOGPROBS
    assert learned.spelled({}, LOGPROBS) == {}


@pytest.mark.parametrize("message", ["stream_options is not allowed", "Invalid include_usage"])
def test_a_stream_goes_without_its_usage(message: str) -> None:
    assert after(refusal(message), {"stream": True, "stream_options": {"include_usage": True}}) == {"stream": True}


def test_what_is_meant_for_us_is_left_out_where_there_is_no_such_field() -> None:
    body = {"metadata": {"task": "x"}, "store": True}
    assert after(refusal("property 'metadata' is unsupported; property 'store' is unsupported"), body) == {}
    assert after(refusal("metadata.task is too long"), body) is None


def test_several_at_once() -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name]} for name in ("max_completion_tokens", "stream_options")
    ]
    body = {"max_completion_tokens": 5, "stream_options": {"include_usage": True}}
    assert after(refusal("", detail=detail), body) == {"max_tokens": 5}


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRateLimited("stream_options"),
        UpstreamError("stream_options"),
        UpstreamUnable("no", reply_status=400, reply_body=b"stream_options unknown"),
        refusal("no"),
    ],
)
def test_what_tells_nothing_of_the_spelling_teaches_nothing(error: UpstreamError | UpstreamRefused) -> None:
    assert after(error, {"max_tokens": 5, "stream_options": {}}, LOGPROBS) is None


def test_a_backend_of_which_nothing_is_known_gets_the_request_as_it_is() -> None:
    body: dict[str, Any] = {"messages": MESSAGES}
    assert PLAIN.spelled(body, {}) is body
