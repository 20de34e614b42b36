"""A backend's stream as whole events, from the first that says something to the one that ends it."""

from __future__ import annotations

from collections.abc import Callable

from router.errors import UpstreamError
from router.upstream.base import Backend, Stream
from router.upstream.sse import DONE, Cutter, chunks, payload, split

LONGEST_EVENT_BYTES = 32 * 2**20
"""What one event may hold: pictures come as one of many megabytes."""


class EventStream:
    """``failed`` is told of each failure after ``begin``."""

    __slots__ = ("_backend", "_cutter", "_failed", "_first", "_stream", "done")

    def __init__(self, backend: Backend, stream: Stream, failed: Callable[[], None]) -> None:
        self.done = False
        self._backend, self._stream, self._failed, self._cutter = backend, stream, failed, Cutter()
        self._first = b""

    async def begin(self) -> None:
        """Waits for the first event that says something.

        Raises:
            UpstreamError: the stream died or ended before it, or it tells an error.
        """
        held, silent = [], True
        while silent:
            held.append(events := await self._next())
            if not events:
                raise UpstreamError(f"{self._backend.label} ended its stream before it began")
            silent = b"data:" not in events or not any(map(payload, split(events)))
        if b'"error"' in events and (found := chunks(events)) and found[0].get("error"):
            raise UpstreamError(f"{self._backend.label} answered with an error")
        self._first = b"".join(held)

    async def read(self) -> bytes:
        """The events that arrived together, in one run of bytes; empty at the end. ``done`` once the stream
        said that it is.

        Raises:
            UpstreamError: the stream died.
        """
        events, self._first = self._first, b""
        if not events:
            try:
                events = await self._next()
            except UpstreamError:
                self._failed()
                raise
        if events[-16:].rstrip().endswith(DONE):  # no chunk ends so: JSON ends in a bracket
            self.done = True
        return events

    def cut_short(self) -> UpstreamError:
        """The failure that an end is which came too early."""
        self._failed()
        return UpstreamError(f"{self._backend.label} ended its stream in the middle")

    async def close(self) -> None:
        await self._stream.close(done=self.done)

    async def _next(self) -> bytes:
        while piece := await self._stream.read():
            if events := self._cutter.feed(piece):
                return events
            if self._cutter.size > LONGEST_EVENT_BYTES:
                raise UpstreamError(f"{self._backend.label} sent an event of more than {LONGEST_EVENT_BYTES} bytes")
        rest = self._cutter.rest()  # at the end: what lacks its closing blank line, with one
        return rest + b"\n\n" if rest.strip() else b""
