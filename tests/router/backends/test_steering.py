"""No field of a client's says where a request goes, with which key, or what is answered instead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import litellm
import orjson
import pytest

from router.backends.base import Backend, WaitingTime
from router.backends.litellm import LiteLLMWire
from router.errors import UpstreamError, UpstreamRefused, UpstreamUnable
from tests.fakes import FakeUpstream, served
from tests.router.backends.conftest import MESSAGES, PLAIN, at, whole


class Stranger:
    """Where a client would like a request to go. ``seen`` are the paths that anybody asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"image/png")]})
        await send({"type": "http.response.body", "body": b"\x89PNG\r\n\x1a\n" + bytes(24)})


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    found = Stranger()
    with served(found) as found.url:
        yield found


@pytest.fixture(autouse=True)
def unseen(stranger: Stranger) -> None:
    stranger.seen.clear()


def steering(url: str) -> dict[str, Any]:
    return {
        "api_base": url,
        "base_url": url,
        "api_key": "sk-client",
        "custom_llm_provider": "openai",
        "api_version": "2024-02-01",
        "azure_ad_token": "x",
        "vertex_credentials": "/etc/passwd",
        "vertex_project": "p",
        "extra_headers": {"x-injected": "yes"},
        "headers": {"x-injected": "yes"},
        "extra_body": {"model": "other"},
        "extra_query": {"a": "b"},
        "fallbacks": ["openai/gpt-4o"],
        "context_window_fallback_dict": {"big": "openai/gpt-4o"},
        "model_list": [{"model_name": "big", "litellm_params": {"model": "openai/x", "api_base": url}}],
        "deployment_id": "other",
        "mock_response": "not the teacher's",
        "mock_tool_calls": [{"id": "1", "type": "function", "function": {"name": "rm", "arguments": "{}"}}],
        "mock_timeout": True,
        "mock_delay": 100,
        "timeout": 0.001,
        "request_timeout": 0.001,
        "stream_timeout": "x",
        "num_retries": 50,
        "max_retries": 50,
        "ssl_verify": False,
        "client": "x",
        "logger_fn": "x",
        "verbose": True,
        "caching": True,
        "cache": {"no-cache": False},
        "input_cost_per_token": 0,
        "prompt_id": "x",
        "prompt_variables": {"a": "b"},
        "guardrails": ["x"],
        "metadata": {"task": "x", "hidden_params": {}},
        "litellm_metadata": {"a": 1},
        "litellm_params": {"api_base": url},
        "litellm_logging_obj": "x",
        "litellm_call_id": "x",
        "aws_bedrock_runtime_endpoint": url,
        "aws_role_name": "x",
        "organization": "x",
        "provider_specific_header": {"custom_llm_provider": "hosted_vllm", "extra_headers": {"x-injected": "yes"}},
        "user_continue_message": {"role": "user", "content": "x"},
        "initial_prompt_value": "x",
        "hf_model_name": "x",
        "store": True,
        "drop_params": False,
        "allowed_openai_params": ["api_base"],
        "_skip_mcp_handler": False,
        "no-log": True,
        "acompletion": False,
        "aembedding": False,
    }


@pytest.mark.parametrize("field", [*steering(""), "all"])
async def test_a_clients_field_steers_nothing(
    upstream: FakeUpstream, stranger: Stranger, backend: Backend, field: str
) -> None:
    fields = steering(f"{stranger.url}/v1")
    more = fields if field == "all" else {field: fields[field]}
    answer = await whole(backend, {**PLAIN, "temperature": 0.5, **more})
    assert answer["choices"][0]["message"]["content"] == "hello there friend"
    assert (len(upstream.seen), len(stranger.seen)) == (1, 0)
    sent = upstream.seen[0]
    assert sent.body.keys() <= {"model", "messages", "temperature", "stream"}
    assert (sent.headers["authorization"], sent.body["model"]) == ("Bearer sk-secret", "big")
    assert not {"x-injected", "api-key"} & sent.headers.keys()


async def test_nor_does_one_of_an_embeddings_request(
    upstream: FakeUpstream, stranger: Stranger, backend: Backend
) -> None:
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "big"}
    upstream.always(raw=orjson.dumps(vectors | {"usage": {"prompt_tokens": 3, "total_tokens": 3}}))
    body = {"model": "x", "input": ["a"], "dimensions": 1, "encoding_format": "float"}
    await LiteLLMWire().embed(backend, body | steering(f"{stranger.url}/v1"), WaitingTime())
    assert (len(upstream.seen), len(stranger.seen)) == (1, 0)
    assert upstream.seen[0].body.keys() <= {"model", "input", "dimensions", "encoding_format"}
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/claude-sonnet-4-5",
        "bedrock/anthropic.claude-3-haiku-20240307-v1:0",
        "bedrock/converse/us.amazon.nova-pro-v1:0",
        "gemini/gemini-2.0-flash",
        "ollama/llava",
        "hosted_vllm/big",
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "image_string", "file", "document"])
async def test_nothing_that_a_message_names_is_fetched(
    stranger: Stranger, backend: Backend, monkeypatch: pytest.MonkeyPatch, model: str, kind: str
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_BEDROCK_RUNTIME_ENDPOINT": "http://127.0.0.1:9",
        "OLLAMA_API_BASE": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(litellm, "user_url_allowed_hosts", [urlsplit(stranger.url).netloc])  # else it refuses this one
    url = f"{stranger.url}/secret.png"
    part: dict[str, Any] = {
        "image_url": {"type": "image_url", "image_url": {"url": url}},
        "image_string": {"type": "image_url", "image_url": url},
        "file": {"type": "file", "file": {"file_id": url, "format": "image/png"}},
        "document": {"type": "document", "source": {"type": "url", "url": url}},
    }[kind]
    body = {**PLAIN, "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]}
    if "hosted_vllm" not in model:
        with pytest.raises((UpstreamError, UpstreamRefused)):
            await LiteLLMWire().complete(at(model, key=None, timeout_seconds=10), body, WaitingTime())
    else:
        await asyncio.wait([asyncio.create_task(LiteLLMWire().complete(backend, body, WaitingTime()))])
    assert not stranger.seen


async def test_an_image_that_would_have_to_be_fetched_is_refused_by_name(backend: Backend) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    with pytest.raises(UpstreamUnable) as caught:
        await whole(at("anthropic/claude-sonnet-4-5"), PLAIN | {"messages": [{"role": "user", "content": [part]}]})
    error = orjson.loads(caught.value.reply_body)["error"]
    assert (caught.value.reply_status, error["param"]) == (400, "messages[0].content[0]")


@pytest.mark.parametrize("url", ["gs://bucket/x.png", "s3://bucket/x.png", "file:///etc/passwd", "FTP://x/y"])
async def test_what_the_proxys_account_alone_might_reach_is_refused(
    upstream: FakeUpstream, backend: Backend, url: str
) -> None:
    inner = {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}
    for part in ({"type": "image_url", "image_url": {"url": url}}, {"type": "file", "file": {"file_id": url}}, inner):
        with pytest.raises(UpstreamUnable):
            await whole(backend, PLAIN | {"messages": [{"role": "user", "content": [part]}]})
    assert not upstream.seen


async def test_words_that_look_like_an_address_are_words(upstream: FakeUpstream, backend: Backend) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "gs://what/is/this"}]}]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    await whole(backend, PLAIN | {"messages": [*messages, {"role": "user", "content": [image]}]})
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    "tool", [{"type": "mcp", "server_url": "litellm_proxy"}, {"googleSearch": {}}, {"type": "file_search"}, "x", None]
)
async def test_tools_that_would_run_for_the_proxys_account_are_refused_by_name(
    upstream: FakeUpstream, backend: Backend, tool: Any
) -> None:
    with pytest.raises(UpstreamUnable) as caught:
        await whole(backend, PLAIN | {"tools": [tool]})
    assert orjson.loads(caught.value.reply_body)["error"]["param"] == "tools[0]"
    assert not upstream.seen


@pytest.mark.parametrize(
    "tool", [{"type": "custom", "googleSearch": {}}, {"type": "function", "google_search": {}}, {"type": ["custom"]}]
)
async def test_nor_does_a_tool_run_there_under_a_type_of_the_clients(backend: Backend, tool: Any) -> None:
    with pytest.raises(UpstreamUnable):
        await whole(at("gemini/gemini-2.0-flash"), PLAIN | {"tools": [tool]})


async def test_a_search_by_the_provider_is_refused_by_name(upstream: FakeUpstream, backend: Backend) -> None:
    with pytest.raises(UpstreamUnable) as caught:
        await whole(backend, PLAIN | {"web_search_options": {}})
    assert orjson.loads(caught.value.reply_body)["error"]["param"] == "web_search_options"
    await whole(backend, PLAIN | {"web_search_options": None, "service_tier": "priority"})
    assert len(upstream.seen) == 1
    assert not {"web_search_options", "service_tier"} & upstream.seen[0].body.keys()


GEMINI: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "ok"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}


async def test_a_message_has_media_in_its_content_alone(upstream: FakeUpstream, backend: Backend) -> None:
    upstream.always(raw=orjson.dumps(GEMINI))
    image = {"image_url": {"url": "gs://bucket/secret.png"}}
    done = {"server_side_tool_invocations": [{"tool_type": "x", "id": "1", "args": {"at": "gs://bucket/secret"}}]}
    turn = {"role": "assistant", "content": "y", "images": [image], "provider_specific_fields": done}
    asked = {"role": "user", "content": [{"type": "text", "text": "go on"}], "documents": [image]}
    await whole(at("gemini/gemini-2.0-flash"), PLAIN | {"messages": [*MESSAGES, turn, asked]})
    assert "secret" not in str(upstream.seen[0].body)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "image_url", "image_url": {"url": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"type": "image_url", "image_url": "https://storage.googleapis.com/bucket/x.png"},
        {"type": "image_url", "image_url": {"url": "https://example.com/gs://bucket/x.png"}},
        {"type": "file", "file": {"file_data": "https://API.openai.com/v1/files/abc"}},
        {"type": "container_upload", "file_id": "abc"},
        {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
        {"type": "text", "text": "x", "image_url": {"url": "gs://bucket/x.png"}},
        {"image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ],
)
async def test_files_of_the_proxys_account_are_refused_by_name(
    upstream: FakeUpstream, backend: Backend, part: dict[str, Any]
) -> None:
    for content, where in ([part], "messages[0].content[0]"), (part, "messages[0].content"):
        with pytest.raises(UpstreamUnable) as caught:
            await whole(backend, PLAIN | {"messages": [{"role": "user", "content": content}]})
        error = orjson.loads(caught.value.reply_body)["error"]
        assert (caught.value.reply_status, error["param"]) == (400, where)
    assert not upstream.seen


@pytest.mark.parametrize("given", ["gs://bucket/x.png", ["hi", "files/abc"]])
async def test_nor_are_they_made_vectors_of(upstream: FakeUpstream, backend: Backend, given: Any) -> None:
    with pytest.raises(UpstreamUnable):
        await LiteLLMWire().embed(at("gemini/gemini-embedding-2"), {"model": "x", "input": given}, WaitingTime())
    assert not upstream.seen


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize("model", ["gemini/gemini-2.0-flash", "anthropic/claude-sonnet-4-5"])
async def test_a_mark_for_the_cache_makes_none_that_is_paid_by_the_hour(
    upstream: FakeUpstream, backend: Backend, model: str
) -> None:
    answer = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "ok"}], "id": "m"}
    answer |= {"model": "m", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    upstream.always(raw=orjson.dumps(answer if "claude" in model else GEMINI))
    part = {"type": "text", "text": "word " * 5000, **MARK}
    await whole(at(model), PLAIN | {"messages": [{"role": "system", "content": [part]}, {**MESSAGES[0], **MARK}]})
    assert len(upstream.seen) == 1
    assert ("cache_control" in str(upstream.seen[0].body)) is ("claude" in model)
