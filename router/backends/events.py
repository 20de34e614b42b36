"""A backend's stream as whole events, from the first word to the one that ends it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from router.backends.base import Backend, Pairs, Stream
from router.backends.conversion import streamed
from router.backends.faults import bound, too_long
from router.backends.inband_errors import Told, broken_off, error_in, failure, suspicious, told
from router.errors import UpstreamError
from router.wire.json_text import BOM
from router.wire.sse import COMMENT, Cutter, chunks, ends, named, payload, read, says_something, split, work
from router.wire.threads import LARGE_BYTES, aside
from router.wire.usage import merged, told_in

LONGEST_EVENT_BYTES = 32 * 2**20
"""What one event may hold, and what may come before the first word: pictures come as one event of many megabytes."""
LONGEST_UNPACKED_BYTES = 128 * 2**20
"""What a stream may hold that comes compressed (a thousand times what was sent), or through who may unpack it."""
LAST_EVENTS_SECONDS = 2.0
"""How long a stream is waited for whose answer has ended."""
LARGE_PIECE_BYTES = 2**14
"""Pieces longer than this come from a server that does not wait for its own words."""


_ERROR_LINE = re.compile(rb"^error:[ \t]*(\S[^\r\n]*)", re.IGNORECASE | re.MULTILINE)
"""A field that no event has: some servers put it beside the chunk that they could still write."""


class EventStream:
    """``failed`` is told of each failure after ``begin``. An event that tells an error is never given out: it is
    raised once those before it were read."""

    __slots__ = ("_backend", "_cutter", "_error", "_failed", "_first", "_stream", "_until", "_usage", "done")

    def __init__(self, backend: Backend, stream: Stream, failed: Callable[[], None]) -> None:
        self.done = False
        self._backend, self._stream, self._failed, self._cutter = backend, stream, failed, Cutter()
        self._first = b""
        self._error: Told | None = None
        self._usage: dict[str, Any] | None = None
        self._until = 0.0

    @property
    def headers(self) -> Pairs:
        return self._stream.headers

    async def begin(self) -> None:
        """Waits for the first word: until it another backend can still answer.

        Raises:
            UpstreamError: the stream died or ended before it, or told an error.
            UpstreamRefused: it told that the request is wrong.
        """
        held: list[bytes] = []
        size = 0
        events = await self._opening()
        while not any(map(says_something, found := await _chunks(events))):
            self._count(found)
            if self._error is not None:
                raise failure(self._backend, self._error, self._usage)
            if not events or ends(events):
                error = UpstreamError(f"{self._backend.label} ended its stream before it said anything")
                error.usage = self._usage
                raise error
            if found or len(events) <= LARGE_PIECE_BYTES:  # so many comments need no place
                held.append(events)
            if (size := size + len(events)) > LONGEST_EVENT_BYTES:
                raise too_long(self._backend, f"{LONGEST_EVENT_BYTES} bytes")
            events = await self._next()
        self._first = b"".join([*held, events])

    async def read(self) -> bytes:
        """The events that arrived together, in one run of bytes; empty at the end. ``done`` once the stream
        said that it is.

        Raises:
            UpstreamError: the stream died, or told an error.
        """
        events, self._first = self._first, b""
        if not events:
            try:
                events = await self._next()
                if self._error is not None and not events:
                    raise broken_off(self._backend, self._error, self._usage)
            except UpstreamError:
                self._failed()
                raise
        self.done = self.done or ends(events)
        return events

    async def last(self) -> bytes:
        """As ``read``, once the answer has ended: its counts, and that it is done, if they come soon. Some servers
        then leave the stream open."""
        self._until = self._until or time.monotonic() + LAST_EVENTS_SECONDS
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                return await self.read()
        except TimeoutError:
            return b""

    def failed(self, what: str) -> UpstreamError:
        """The failure that it is where who reads on finds ``what`` the backend did."""
        self._failed()
        error = UpstreamError(f"{self._backend.label} {what}")
        error.__cause__ = ValueError(what)  # it was an answer, which may have to be paid
        return error

    async def close(self) -> None:
        await self._stream.close(done=self.done)

    async def _opening(self) -> bytes:
        """The first events. Some backends know no streams, and answer one whole whatever was asked."""
        first = b""
        while not first and (piece := await self._stream.read()):
            first = piece.removeprefix(BOM).lstrip()
        if first[:1] != b"{":
            return await self._checked(self._cutter.feed(first)) or await self._next()
        pieces, size = [first], len(first)
        while piece := await self._stream.read():
            pieces.append(piece)
            if (size := size + len(piece)) > LONGEST_EVENT_BYTES:
                raise too_long(self._backend, f"{LONGEST_EVENT_BYTES} bytes")
        return await self._checked(await aside(lambda: streamed(self._backend, b"".join(pieces)), size))

    async def _next(self) -> bytes:
        """The next events before an error; empty at the end, and where the next is one."""
        while self._error is None and (piece := await self._stream.read()):
            if len(piece) > LARGE_PIECE_BYTES:  # more may be there already, and others wait
                await asyncio.sleep(0)
            if events := self._cutter.feed(piece):
                return await self._checked(events)
            if self._cutter.size > LONGEST_EVENT_BYTES:
                raise too_long(self._backend, f"{LONGEST_EVENT_BYTES} bytes")
        rest = self._cutter.rest() + b"\n\n"  # at the end: what lacks its closing blank line, unless it lacks more
        if self._error is not None or not rest.strip():
            return b""
        is_event = await aside(lambda: read(rest)[1] or _error_of(rest) is not None, len(rest))
        return await self._checked(rest) if is_event else b""

    async def _checked(self, events: bytes) -> bytes:
        """The events up to one that tells an error."""
        size = work(events)
        return (
            self._before_error(events)
            if size <= LARGE_BYTES
            else await aside(partial(self._before_error, events), size)
        )

    def _before_error(self, events: bytes) -> bytes:
        bound(self._backend, events)
        events = self._backend.without_key(events, answer=True)
        if _all_chunks(events) and b"event:" not in events and b"rror:" not in events and not suspicious(events):
            return events
        before: list[bytes] = []
        for event in (all_events := split(events)):
            is_comment = event.startswith(COMMENT) and b"\n" not in event[:-2]
            if not is_comment and (error := _error_of(event)) is not None:
                self._error = error
                self._count(chunks(b"".join(all_events[len(before) :]))[0])
                break
            before.append(event)
        return b"".join(before)

    def _count(self, found: list[dict[str, Any]]) -> None:
        """Notes what is told of tokens where no answer is."""
        for chunk in found:
            if (told := told_in(chunk)) is not None:
                self._usage = merged(self._usage, told)


async def _chunks(events: bytes) -> list[dict[str, Any]]:
    return (await aside(partial(chunks, events), work(events)))[0]


def _all_chunks(events: bytes) -> bool:
    """Whether each of the events has choices, by the look of the bytes; the last may end the stream."""
    return events.count(b'"choices"') >= events.count(b"\n\n") - ends(events) and b"\r" not in events


def _error_of(event: bytes) -> Told | None:
    """The error that an event tells; some servers write one into a stream as it is, or as a field of its own."""
    bare = event.lstrip()
    if bare[:6].lower() == b"error:":
        bare = bare[6:].strip()
        found = read(b"data: " + bare + b"\n\n")[0]
        return error_in(found) or told(found or bare.decode("utf-8", "replace"))
    if (line := _ERROR_LINE.search(event)) is not None:
        return told(read(b"data: " + line[1] + b"\n\n")[0] or line[1].decode("utf-8", "replace"))
    found = read(b"data: " + bare if bare[:1] == b"{" else event)[0]
    if named(event) == b"error":
        return error_in(found) or told(found or payload(event).decode("utf-8", "replace"))
    return error_in(found)
