"""An endpoint beside the cascade: one request in, one whole answer out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from router.api.entrance import Arrived
from router.errors import UpstreamRefused
from router.upstream.base import Reply

Answering = Callable[[Arrived], Awaitable[Reply]]
"""Raises LocumError."""


class Plain:
    """Answers with what ``answering`` makes of a request (``router.api.entrance.Work``)."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, arrived: Arrived) -> None:
        try:
            reply = await self._answering(arrived)
            await arrived.sink.whole(reply.status, list(reply.headers), reply.body)
        except UpstreamRefused as refused:
            headers = [(b"x-locum-request-id", arrived.request_id.encode()), *refused.reply_headers]
            await arrived.sink.whole(refused.reply_status, headers, refused.reply_body)
