"""The running proxy does what its OpenAPI document says, whatever is asked; nothing asked breaks it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from openai import NotFoundError, OpenAI
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from router.api import feedback
from router.api.openapi import document
from tests.fakes import FakeUpstream, World, served, until, world

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
VECTORS = {"data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}}
DOCUMENT = document("locum/default")
POSTED = [path for path, methods in DOCUMENT["paths"].items() if "post" in methods]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    vectors = FakeUpstream("vectors-1")
    vectors.always(raw=orjson.dumps(VECTORS))
    with served(vectors) as url:
        part = {"model": "vectors-1", "url": f"{url}/v1", "usd_per_million": 1}
        with world(tmp_path_factory.mktemp("world"), embeddings=part) as found:
            until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
            yield found


@pytest.fixture(scope="module")
def models() -> Iterator[str]:
    """Names that exist, by turns: a random one would be turned away before anything else is looked at."""
    return itertools.cycle(["locum/teacher", "locum/student", "default"])


@schemathesis.openapi.from_dict(DOCUMENT).parametrize()
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_proxy_does_what_its_document_says(
    case: schemathesis.Case[Any], proxy: World, models: Iterator[str]
) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and case.body["model"]:
        case.body["model"] = next(models)
    case.call_and_validate(base_url=proxy.url, checks=CHECKS)


WELL: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/embeddings": {"input": "hi"},
    "/v1/feedback": {"score": 1},
}
"""For every path a body that is right, but for feedback's: a request that is not there would be waited for."""

FIELDS = ("metadata", "messages", "input", "prompt", "tools", "user", "system", "response_format", "stop", "stream")
ODD = (
    b"1" * 400, b"1e400", b"NaN", b'"\\ud800"', b'"\\u0000"', b'"\xff"', b"[[]]", b"[null]", b"[{}]", b"{}", b"5",
    b'[{"role":"user","content":{}}]', b'[{"role":"user","content":[1]}]', b'[{"role":"tool","tool_calls":5}]',
    b'[{"role":"assistant","tool_calls":[{"function":7}]}]', b'[{"type":"function","function":[]}]',
    b'[{"role":"user","content":[{"type":"image_url","image_url":1},{"type":"text","text":{}}]}]',
    b'[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":5}}]}]',
    b'{"type":"json_schema","json_schema":5}', b'{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}',
)  # fmt: skip
DEPTHS = (100, 230, 240, 250, 300, 1_000, 9_000)


def hostile(path: str) -> Iterator[bytes]:
    """Bodies that some part of a proxy might choke on: one odd field in each."""
    right = {"model": "default", **WELL[path]}
    deep = [opening * n + b"1" + closing * n for n in DEPTHS for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"))]
    for field in FIELDS:
        rest = orjson.dumps({k: v for k, v in right.items() if k != field})[:-1]
        for value in (*ODD, *(deep if field in ("metadata", "input", "tools") else ())):
            yield b'%b,"%b":%b}' % (rest, field.encode(), value)
    yield from (b"", b"null", b"\x00", b"\xef\xbb\xbf{}", b'{"model":"default"', b"[]", b"[" * 100_000)


@pytest.mark.parametrize("path", POSTED)
def test_no_body_breaks_it(proxy: World, path: str) -> None:
    tiers = itertools.cycle(["student", "teacher"])
    with httpx.Client(base_url=proxy.url, timeout=20) as client:
        asked = [
            (body, client.post(path, content=body, headers={"x-locum-tier": next(tiers)})) for body in hostile(path)
        ]
    assert [(body[:200], answer.text) for body, answer in asked if answer.status_code not in (200, 400, 404, 413)] == []
    assert {answer.status_code for _, answer in asked} > {400} or path == feedback.PATH


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("name", ["authorization", "x-api-key", "x-locum-tier", "x-locum-conversation", "content-type"])
def test_no_header_breaks_it(proxy: World, path: str, name: str) -> None:
    for value in (b"\xff\xfe", b"Bearer \xc3\x28", b""):
        answer = httpx.post(proxy.url + path, json={"model": "default", **WELL[path]}, headers=[(name.encode(), value)])
        assert answer.status_code in (200, 400)


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_a_wrong_method_says_which_is_right(proxy: World, path: str, method: str) -> None:
    answer = httpx.request(method, proxy.url + path)
    if answer.status_code == 404:  # the name of something that is not there, since what is there can be asked for
        assert path == "/v1/responses"
        return
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_models_own_wrong_methods_too(proxy: World) -> None:
    answer = httpx.post(f"{proxy.url}/v1/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_names_with_slashes_and_without_are_looked_up(proxy: World) -> None:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        assert client.models.retrieve("locum/default").id == "locum/default"
        assert client.models.retrieve("locum/default/teacher").id == "locum/default/teacher"
        with pytest.raises(NotFoundError) as caught:
            client.models.retrieve("no/such/model")
    assert caught.value.body == {
        "message": "no model 'no/such/model' here; there is locum/default, gpt-4o, locum/student, locum/teacher",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_the_document_is_served_and_names_every_path(proxy: World) -> None:
    found = httpx.get(f"{proxy.url}/openapi.json").json()
    assert found == DOCUMENT
    for path in (*POSTED, "/v1/models", "/health/live", "/metrics"):
        assert path in found["paths"]
