"""Bodies that come compressed, unpacked within a bound."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import brotli
import zstandard

from router.errors import BadRequest, TooLarge, UnknownEncoding

PIECE_BYTES = 2**16
ZSTD_BYTES = 256
WINDOW_BYTES = 8 * 2**20
"""The largest window that zstd may have here, as RFC 9659 has it: a frame may ask for gigabytes."""
IDENTITY = frozenset({"", "identity"})


class _Truncated(Exception):
    """The body ends before what was packed in it does."""


async def unpacked(encoding: str, content: bytes, limit_bytes: int) -> bytes:
    """What was packed as ``Content-Encoding`` says. It is unpacked aside, since little can unpack to much, and no
    further than to ``limit_bytes``.

    Raises:
        UnknownEncoding: the encoding is none that is known here, or several on top of each other.
        TooLarge: it is longer than ``limit_bytes``.
        BadRequest: it is not packed in this way, or not whole.
    """
    name = encoding.strip().lower()
    if name in IDENTITY:
        return content
    if (pieces := ENCODINGS.get(name)) is None:
        raise UnknownEncoding(f"a body may be packed once, as one of {UnknownEncoding.known}, not as {name[:64]!r}")
    if not content:
        raise BadRequest(f"the body is empty, not {name}")
    try:
        return await asyncio.to_thread(_joined, pieces(content), limit_bytes)
    except (zlib.error, brotli.error, zstandard.ZstdError, _Truncated) as e:
        raise BadRequest(f"the body is not {name} as it says, or not whole") from e


def _joined(pieces: Iterator[bytes], limit_bytes: int) -> bytes:
    found, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(f"the request is longer than {limit_bytes} bytes, unpacked")
        found.append(piece)
    return b"".join(found)


def _gzip(content: bytes) -> Iterator[bytes]:
    """Any number of members, one after the other."""
    while content:
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        yield from _inflated(member, content)
        content = member.unused_data


def _deflate(content: bytes) -> Iterator[bytes]:
    """With zlib's header, as the standard has it, or without, as some clients do."""
    with_header = content[0] & 0x0F == 8 and int.from_bytes(content[:2].ljust(2)) % 31 == 0
    stream = zlib.decompressobj(zlib.MAX_WBITS if with_header else -zlib.MAX_WBITS)
    yield from _inflated(stream, content)
    if stream.unused_data:
        raise zlib.error("something follows the end")


def _inflated(stream: Any, content: bytes) -> Iterator[bytes]:
    while content and not stream.eof:
        yield stream.decompress(content, PIECE_BYTES)
        content = stream.unconsumed_tail
    while not stream.eof and (piece := stream.decompress(b"", PIECE_BYTES)):  # that it held back
        yield piece
    if not stream.eof:
        raise _Truncated


def _brotli(content: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    yield stream.process(content, output_buffer_limit=PIECE_BYTES)
    while not stream.is_finished():
        piece = stream.process(b"", output_buffer_limit=PIECE_BYTES)
        if not piece and not stream.is_finished():
            raise _Truncated
        yield piece


def _zstd(content: bytes) -> Iterator[bytes]:
    """Any number of frames, one after the other. The library bounds no output, so that it gets its input in pieces
    too small for much: a block of 4 bytes may be one of 128 KiB."""
    at = 0
    while at < len(content):
        frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
        while not frame.eof:
            if not (piece := content[at : at + ZSTD_BYTES]):
                raise _Truncated
            yield frame.decompress(piece)
            at += len(piece) - len(frame.unused_data)


ENCODINGS: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
