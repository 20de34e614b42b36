"""A provider's rate limits and its request's id reach the client, and nothing of the account does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from router.backends.base import MOST, Backend, passed_on
from router.backends.events import EventStream
from router.backends.faults import fault
from router.contracts.decision import Tier
from tests.fakes import DEADLINE_SECONDS, World, world

CHAT: dict[str, Any] = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
USEFUL = {
    "x-request-id": "req-of-the-provider",
    "x-ratelimit-limit-requests": "500",
    "X-RateLimit-Remaining-Tokens": "29000",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:00Z",
    "openai-processing-ms": "12",
}
KEY = "sk-of-the-provider-123456"
BACKEND = Backend(Tier.TEACHER, "big", "big", "http://big/v1", 1, key=KEY)
PRIVATE = {"openai-organization": "acme", "openai-project": "p", "set-cookie": "a=b", "cf-ray": "1"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        yield found


def ask(proxy: World, **more: Any) -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=CHAT | more, timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [200, 422])
def test_what_helps_the_client_is_passed_on(proxy: World, stream: bool, status: int) -> None:
    proxy.teacher.always(headers=USEFUL | PRIVATE, status=status)
    answer = ask(proxy, stream=stream)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in USEFUL} == USEFUL
    assert not PRIVATE.keys() & answer.headers.keys()
    assert answer.headers["x-locum-request-id"].startswith("req_")


def test_responses_and_messages_pass_it_on_too(proxy: World) -> None:
    proxy.teacher.always(headers=USEFUL)
    for path, body in (
        ("/v1/responses", {"model": "locum/teacher", "input": "hi"}),
        ("/v1/messages", CHAT | {"max_tokens": 9}),
        ("/v1/completions", {"model": "locum/teacher", "prompt": "hi"}),
    ):
        for stream in (False, True):
            answer = httpx.post(f"{proxy.url}{path}", json=body | {"stream": stream}, timeout=DEADLINE_SECONDS)
            assert answer.headers["x-ratelimit-limit-requests"] == "500", (path, stream)


def test_a_header_that_no_server_may_send_fails_nothing() -> None:
    odd = [(b"x-ratelimit-a", b"\x01"), (b"X-RateLimit-B", b"\xff\xfe"), (b"x-request-id", b"")]
    assert passed_on(BACKEND, odd) == ((b"x-ratelimit-b", b"\xff\xfe"), (b"x-request-id", b""))
    assert len(passed_on(BACKEND, [(b"x-ratelimit-%d" % n, b"1") for n in range(1000)])) == MOST


def test_no_header_holds_the_key_it_was_asked_with() -> None:
    names = b"x-request-id", b"x-ratelimit-key", b"retry-after"
    told = passed_on(BACKEND, [(name, f"of {KEY}".encode()) for name in names])
    assert told == tuple((name, b"of [SECRET]") for name in names)


@pytest.mark.parametrize("key", ["EMPTY", "not-needed"])
def test_an_answer_may_say_the_word_that_stands_for_no_key(key: str) -> None:
    assert replace(BACKEND, key=key).without_key(f"it is {key}".encode(), answer=True) == f"it is {key}".encode()
    assert b"[SECRET]" in BACKEND.without_key(f"it is {KEY}".encode(), answer=True)


ODD = "Zm9vYmFy/abc+12345=="
SPELLINGS = {
    "as it is": ODD,
    "Gson": ODD.replace("=", r"\u003d"),
    "PHP and Gson": ODD.replace("/", r"\/").replace("=", r"\u003d"),
    ".NET": ODD.replace("+", r"\u002B"),
    "one letter": ODD.replace("m", r"\u006d"),
    "all": "".join(f"\\u{ord(c):04x}" for c in ODD),
    "all, in JSON in JSON": "".join(f"\\\\u{ord(c):04X}" for c in ODD),
    "in a URL": quote(ODD, safe=""),
    "in a URL, small": quote(ODD, safe="").lower().replace("zm9vymfy", "Zm9vYmFy"),
    "in a URL in a URL": quote(quote(ODD, safe=""), safe=""),
    "all mixed": r"Z\u006D9v%59mFy\/ab\u0063%2B12345\u003D%3d",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_key_is_found_however_it_is_escaped(spelling: str) -> None:
    backend = replace(BACKEND, key=ODD)
    said = f'{{"message": "of \\u0022{spelling}\\n"}}'.encode()
    assert backend.without_key(said, answer=True) == rb'{"message": "of \u0022[SECRET]\n"}'
    assert fault(backend, 422, said, {}).reply_body == rb'{"message": "of \u0022[SECRET]\n"}'  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ['with "quotes" and \\ 1', "k\u00e9y-of-\u65e5\u672c-1", "key-\U0001f511-of-1"])
def test_keys_of_any_characters_are_found(key: str) -> None:
    backend = replace(BACKEND, key=key)
    for said in (json.dumps(key), json.dumps(json.dumps(key)), json.dumps(key, ensure_ascii=False), quote(key)):
        assert key not in said or said == json.dumps(key, ensure_ascii=False)
        assert b"[SECRET]" in backend.without_key(said.encode(), answer=True), said


def test_what_is_no_key_stays_as_it_is_written() -> None:
    for said in (rb"\u005a m9vYmFy %5A Zm9vYmFy\/abc", rb"\\\\" * 9999, b"%" * 9999):
        assert replace(BACKEND, key=ODD).without_key(said, answer=True) == said


class Pieces:
    headers = ()

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    async def close(self, *, done: bool = False) -> None: ...


@pytest.mark.parametrize("cut", range(40, 75))
async def test_an_escape_that_is_cut_between_two_pieces_of_a_stream_is_found(cut: int) -> None:
    told = ODD.replace("=", r"\u003d").replace("+", r"\u002B")
    event = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{told}"}}}}]}}\n\n'.encode()
    stream = EventStream(replace(BACKEND, key=ODD), Pieces(event[:cut], event[cut:]), lambda: None)
    await stream.begin()
    assert b'"content":"[SECRET]"' in await stream.read()
