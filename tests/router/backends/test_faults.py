"""Whose fault a refusal is, by what providers really say."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import orjson
import pytest

from router.backends.base import Backend
from router.backends.faults import fault, wait_seconds
from router.contracts.decision import Tier
from router.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnable,
    UpstreamUnusable,
)

BIG = Backend(Tier.TEACHER, "big", "big", "http://big/v1", 1, key="sk-secret")


def of(status: int, message: str = "", headers: dict[str, str] | None = None, /, **error: Any) -> Any:
    return fault(BIG, status, orjson.dumps({"error": {"message": message} | error}), headers or {})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "Invalid value for 'temperature'", "param": "temperature"}),
        (413, {"message": "request entity too large"}),
        (422, {"message": "unprocessable"}),
        (400, {"message": "Output blocked by content filtering", "code": "content_filter"}),
        (400, {"message": "The response was filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (403, {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}),
        (403, {"message": "You are not allowed to request logprobs from this model"}),
        (400, {"message": "'temperature' does not support 0.2 with this model. Only the default is supported."}),
        (400, {"message": "Unsupported parameter: 'max_tokens' is not supported with this model."}),
        (400, {"message": "tool 'x' does not exist"}),
        (400, {"message": "Invalid schema for response_format 'project': In context=(), 'foo' is not permitted."}),
        (422, {"message": "field 'account' is disabled while 'workspace' has been disabled"}),
        (400, {"message": "'organization' must be one of a, b"}),
    ],
)
def test_a_requests_own_fault_is_told_in_the_backends_words(status: int, error: dict[str, Any]) -> None:
    found = of(status, **error)
    assert type(found) is UpstreamRefused
    assert (found.reply_status, orjson.loads(found.reply_body)["error"]) == (status, error)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "This model's maximum context length is 8192 tokens", "context_length_exceeded"),
        (400, "prompt is too long: 208310 tokens > 200000 maximum", None),
        (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", None),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", None),
        (400, "the request exceeds the available context size", "exceed_context_size_error"),
        (422, "Please reduce the length of the messages or completion.", None),
    ],
)
def test_too_much_for_one_backend_may_be_little_for_another(status: int, message: str, code: str | None) -> None:
    found = of(status, message, code=code)
    assert isinstance(found, UpstreamUnable)
    assert found.reply_status == status


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (401, {"message": "Incorrect API key provided: sk-secret"}, 502),
        (403, {"message": "Project does not have access"}, 502),
        (400, {"message": "API key not valid.", "status": "INVALID_ARGUMENT"}, 502),
        (402, {"message": "Insufficient Balance"}, 402),
        (400, {"message": "Your credit balance is too low to access the Anthropic API."}, 402),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}, 429),
        (429, {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}, 429),
        (404, {"message": "The model `big` does not exist or you do not have access to it."}, 404),
        (400, {"message": "The model `big` has been decommissioned", "code": "model_decommissioned"}, 404),
        (400, {"message": "model has been deprecated"}, 404),
        (400, {"message": "The API deployment for this resource does not exist: https://acme.example"}, 404),
        (400, {"message": "This organization has been disabled."}, 502),
        (400, {"message": "This organization (acme-corp, org-9f3) has disabled model big"}, 502),
        (400, {"message": "Your organization must be verified to stream this model. Please go to: https://x"}, 502),
        (400, {"message": "Your account is temporarily suspended"}, 502),
        (400, {"message": "Project proj_abc does not have access to model x"}, 502),
        (422, {"message": "You don't have permission to use this model"}, 502),
        (400, {"message": "This model is not available in your region"}, 502),
        (400, {"message": "Workspace 'acme internal' spend limit reached"}, 402),
        (400, {"message": "your key of org-acme has low credit"}, 402),
        (400, {"message": "big is not a valid model ID"}, 404),
        (410, {"message": "model retired"}, 410),
        (498, {"message": "flex tier capacity exceeded"}, 503),
    ],
)
def test_what_the_account_or_the_model_is_to_blame_for_is_asked_elsewhere(
    status: int, error: dict[str, Any], told: int
) -> None:
    found = of(status, **error)
    assert isinstance(found, UpstreamUnusable)
    assert (found.status, found.passing) == (told, False)
    assert str(found).startswith("big ") and "sk-secret" not in str(found.body())


def test_the_providers_word_for_it_is_told() -> None:
    found = of(429, "You exceeded your current quota", {"retry-after": "37"}, code="insufficient_quota")
    assert found.body()["error"]["code"] == "insufficient_quota" and "insufficient_quota" in str(found)
    assert found.headers() == [(b"retry-after", b"37")]


@pytest.mark.parametrize("code", ["sk-live-abcdef", 7, "x" * 60, None])
def test_what_may_be_no_word_is_not(code: Any) -> None:
    assert of(402, code=code).code == "upstream_unusable"


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (408, UpstreamTimeout, 504),
        (409, UpstreamError, 502),
        (425, UpstreamError, 502),
        (429, UpstreamRateLimited, 429),
        (500, UpstreamError, 502),
        (503, UpstreamError, 503),
        (529, UpstreamError, 529),
        (302, UpstreamError, 502),
    ],
)
def test_a_moments_fault_may_pass(status: int, kind: type, told: int) -> None:
    found = of(status, "sk-secret")
    assert isinstance(found, kind) and not isinstance(found, UpstreamUnusable)
    assert (found.status, found.passing) == (told, True)
    assert "sk-" not in str(found)


def test_a_limit_that_is_too_low_for_the_request_does_not_pass() -> None:
    words = "Request too large for organization org-acme on tokens per min (TPM): Limit 1, Requested 2"
    for status in (400, 413, 429):
        found = of(status, words)
        assert isinstance(found, UpstreamUnable) and b"org-acme" not in found.reply_body


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("sk-secret", b"Authorization: Bearer sk-secret rejected param foo"),
        ("sk-secret", b'{"detail": [{"loc": ["header"], "input": "Bearer sk-secret"}], "sk-secret": "foo"}'),
        ('a"b/c\\secret', b'{"error": {"message": "foo", "param": "a\\"b\\/c\\\\secret"}}'),
        ('a"b/c\\secret', b'{"error": {"message": "foo", "param": "a\\"b/c\\\\secret"}}'),
        ("another", b"\xff foo api_key=hunter2hunter22 of who@acme.com"),
        ("another", b'{"error": {"message": "foo sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"}}'),
    ],
)
def test_a_refusal_of_any_form_is_told_without_keys(key: str, body: bytes) -> None:
    found = fault(replace(BIG, key=key), 422, body, {})
    assert isinstance(found, UpstreamRefused) and type(found) is UpstreamRefused
    told = found.reply_body.decode("utf-8", "replace")
    assert "[SECRET]" in told and "foo" in told
    assert not any(part in told for part in ("secret", "hunter2", "acme.com", "abcdefghij"))


def test_a_word_in_the_place_of_a_key_is_left_where_it_stands() -> None:
    body = b'{"error": {"message": "the list is EMPTY", "param": null}}'
    found = fault(replace(BIG, key="EMPTY"), 422, body, {})
    assert isinstance(found, UpstreamRefused) and found.reply_body == body


def test_googles_quota_of_a_minute_is_a_moments() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37.5s"}]
    body = [{"error": {"code": 429, "message": "You exceeded your current quota, please check", "details": details}}]
    found = fault(BIG, 429, orjson.dumps(body), {})
    assert isinstance(found, UpstreamRateLimited)
    assert (found.wait_seconds, found.retry_after) == (37.5, "38")


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after": "20"}, "", 20),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after": "-3"}, "", 0),
        ({"retry-after": "1e300"}, "", 86_400),
        ({"retry-after": "nan"}, "", 86_400),
        ({"retry-after": "soon"}, "please try again in 1.2s.", 1.2),
        ({}, "please try again in 6m0s.", 360),
        ({}, "please try again in 1h2m3s.", 3723),
        ({}, "please try again in 20ms.", 0.02),
        ({}, "please retry after 6 seconds.", 6),
        ({}, "retry_delay { seconds: 37 }", 37),
        ({}, "please try again later", None),
        ({}, "", None),
    ],
)
def test_how_long_to_wait_is_read_from_headers_and_words(
    headers: dict[str, str], text: str, seconds: float | None
) -> None:
    assert wait_seconds(headers, text) == seconds


def test_a_date_is_a_wait_too() -> None:
    assert wait_seconds({"retry-after": formatdate(0, usegmt=True)}, "") == 0
    assert (wait_seconds({"retry-after": formatdate(4e9, usegmt=True)}, "") or 0) > 1000


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[1]", b'{"error": 5}', b'{"error": "no"}', b"\xff" * 20_000])
@pytest.mark.parametrize("status", [300, 400, 402, 404, 418, 429, 500, 599])
def test_any_body_is_sorted(status: int, body: bytes) -> None:
    assert isinstance(fault(BIG, status, body, {}), UpstreamError | UpstreamRefused)
