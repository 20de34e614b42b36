"""How long a client waits: for a stream's first token, for the whole answer, and in how much silence."""

from __future__ import annotations

import asyncio
from typing import Any

from router.cascade.drain import Drain
from router.cascade.exchange import Exchange
from router.errors import ShuttingDown, TookTooLong, UpstreamError
from router.wire.chat import EVENT_STREAM, Sink

KEEP_ALIVE = b": keep-alive\n\n"


class Deadlines:
    """Watches over one request, from its making until ``stop``.

    A limit of the policy that passes cancels the task in which it was made, and so does the proxy's end; ``passed``
    says what it was.
    Where a stream has been silent for ``keep_alive_seconds``, its client gets a comment, so that nothing
    between the two takes the connection for dead; the status 200 that goes before it settles nothing
    else, a failure is then told as an event.

    One timer, that is looked at when it fires: most requests are long done by then.
    """

    __slots__ = ("_drain", "_exchange", "_limits", "_loop", "_overdue", "_seen", "_sink", "_task", "_telling", "_timer")

    def __init__(self, exchange: Exchange, sink: Sink, drain: Drain) -> None:
        task = asyncio.current_task()
        assert task is not None  # every request is served in one
        self._task: asyncio.Task[Any] = task
        self._exchange, self._sink, self._limits, self._drain = exchange, sink, exchange.policy.limits, drain
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        self._telling: asyncio.Task[None] | None = None
        self._overdue: TookTooLong | None = None
        self._timer = self._loop.call_later(self._next_look(), self._look)

    @property
    def passed(self) -> UpstreamError | None:
        """What the request was cancelled for; None: its client left."""
        return ShuttingDown() if self._drain.over and self._overdue is None else self._overdue

    def stop(self) -> None:
        self._timer.cancel()
        if self._telling is not None:
            self._telling.cancel()

    def take_back(self) -> None:
        """Ends the cancellation: what is left to do may be awaited."""
        self._task.uncancel()

    def _next_look(self) -> float:
        """In how many seconds something may be due."""
        limits, exchange = self._limits, self._exchange
        elapsed = exchange.elapsed
        if not exchange.chat.streamed:
            return limits.total_seconds - elapsed
        due = limits.total_seconds if exchange.committed else min(limits.total_seconds, limits.first_token_seconds)
        return min(due - elapsed, limits.keep_alive_seconds)

    def _look(self) -> None:
        limits, exchange = self._limits, self._exchange
        if exchange.ended:
            return
        if exchange.elapsed >= limits.total_seconds:
            self._cut(f"the answer took longer than {limits.total_seconds:g} s")
        elif exchange.chat.streamed and not exchange.committed and exchange.elapsed >= limits.first_token_seconds:
            self._cut(f"no token came within {limits.first_token_seconds:g} s")
        else:
            told = self._telling is None or self._telling.done()  # a client that reads nothing is told nothing
            if exchange.chat.streamed and exchange.sent == self._seen and told:
                self._telling = asyncio.create_task(self._tell())
            self._seen = exchange.sent
            self._timer = self._loop.call_later(max(0.0, self._next_look()), self._look)

    def _cut(self, why: str) -> None:
        self._overdue = TookTooLong(why)
        self._task.cancel()

    async def _tell(self) -> None:
        if not self._exchange.ended and not self._sink.started:
            await self._sink.start(200, [*self._exchange.headers(), *EVENT_STREAM])
        if not self._exchange.ended:
            await self._sink.send(KEEP_ALIVE)
