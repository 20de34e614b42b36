"""Bodies that come compressed are unpacked within the limit that holds for all bodies, and never on the event loop."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from router.api.encodings import unpacked
from router.errors import BadRequest, LocumError, TooLarge, UnknownEncoding
from tests.fakes import DEADLINE_SECONDS, World, world

CHAT = json.dumps({"model": "locum/teacher", "messages": [{"role": "user", "content": "hi " * 1000}]}).encode()
LIMIT = 2**20
BOMB = b"a" * (64 * LIMIT)


def deflated_raw(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


def zstd_of_unknown_size(content: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(content) + stream.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "old name": ("x-gzip", gzip.compress),
    "loud": ("GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", deflated_raw),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd of unknown size": ("zstd", zstd_of_unknown_size),
}
MANY = {"gzip", "zstd", "zstd of unknown size"}
"""Of which several may follow each other."""
each = pytest.mark.parametrize("name", PACKED)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        yield found


def post(proxy: World, content: bytes, *encodings: str, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = [("content-encoding", e) for e in encodings]
    return httpx.post(f"{proxy.url}{path}", content=content, headers=headers, timeout=DEADLINE_SECONDS)


@each
def test_a_packed_request_is_answered_like_any_other(proxy: World, name: str) -> None:
    encoding, pack = PACKED[name]
    answer = post(proxy, pack(CHAT), encoding)
    assert answer.status_code == 200
    assert proxy.teacher.seen[-1].body["messages"] == json.loads(CHAT)["messages"]
    assert "content-encoding" not in proxy.teacher.seen[-1].headers


@each
async def test_what_is_long_comes_out_whole(name: str) -> None:
    encoding, pack = PACKED[name]
    content = bytes(range(256)) * 3000 + CHAT * 20
    assert await unpacked(encoding, pack(content), LIMIT) == content
    if name in MANY:
        assert await unpacked(encoding, pack(content) + pack(b"more") + pack(b""), LIMIT) == content + b"more"


@each
async def test_a_bomb_is_stopped_early(name: str) -> None:
    encoding, pack = PACKED[name]
    bomb = pack(BOMB)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await unpacked(encoding, bomb, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 16 * LIMIT
    finally:
        tracemalloc.stop()


@each
async def test_what_is_exactly_as_long_as_it_may_be_is_taken(name: str) -> None:
    encoding, pack = PACKED[name]
    assert len(await unpacked(encoding, pack(b"b" * LIMIT), LIMIT)) == LIMIT


@each
async def test_what_is_cut_short_garbled_or_followed_by_something_is_a_bad_request(name: str) -> None:
    encoding, pack = PACKED[name]
    whole = pack(CHAT)
    for wrong in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"", b"\x00" * 50, CHAT, whole + b"xyz"):
        with pytest.raises(BadRequest, match="body is"):
            await unpacked(encoding, wrong, LIMIT)


@pytest.mark.parametrize(
    "encodings", [("gzip, gzip",), ("gzip", "gzip"), ("br, zstd",), ("compress",), ("snappy",), ("gzip;q=1",)]
)
def test_an_unknown_or_a_double_packing_is_a_415_that_says_what_is_known(
    proxy: World, encodings: tuple[str, ...]
) -> None:
    answer = post(proxy, gzip.compress(gzip.compress(CHAT)), *encodings)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert answer.headers["accept-encoding"] == "zstd, br, gzip, deflate"


def test_errors_have_the_surfaces_form(proxy: World) -> None:
    assert post(proxy, CHAT, "gzip").status_code == 400
    answer = post(proxy, CHAT, "gzip", path="/v1/messages")
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_no_packing_at_all_may_be_named(proxy: World) -> None:
    assert post(proxy, CHAT, "identity").status_code == 200


async def test_a_window_of_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packed: Any = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packed.compress(b"x" * 1000) + packed.flush()
    with pytest.raises(LocumError) as error:
        await unpacked("zstd", content, LIMIT)
    assert not isinstance(error.value, UnknownEncoding | TooLarge)
