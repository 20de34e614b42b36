"""What a wire surface is: over the cascade (``RoutedWork``), or beside it (``PlainWork``). The hot path: parses once,
then hands over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from router.api.admission import Streams
from router.api.asgi import Arrival
from router.api.sessions import conversation_named, user_named
from router.backends.base import Reply
from router.contracts.decision import Tier
from router.errors import BadRequest, UpstreamRefused
from router.routing.conversations import Identities
from router.served.catalog import Catalog
from router.wire.chat import ChatRequest, Native, Sink
from router.wire.lineage import Membership
from router.wire.threads import aside


@dataclass(slots=True)
class AskedChat:
    """What a client asked, as a chat-completions request. ``through`` wraps the client's sink into one
    that takes a chat answer's bytes (whole, or whole server-sent events); None: they leave as they are.
    ``conversation`` is the one it belongs to, where the surface knows, and ``named`` what the client calls it, where
    that is told by more than ``body``. ``native``: the
    request in the surface's own dialect; what answers in it too, ``through`` passes on. ``before``: bytes of what
    was said before it."""

    body: dict[str, Any]
    through: Callable[[Sink], Sink] | None = None
    conversation: Membership | None = None
    named: str | None = None
    native: Native | None = None
    before: int = 0


class Surface(Protocol):
    """A form that requests and answers have on the wire."""

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> AskedChat:
        """Reads a request; the headers' names are in lower case. Its ``body`` has at least ``model`` (a string)
        and ``messages`` (objects with a ``role``). Raises BadRequest with a message that says what to do,
        NotFound, ..."""
        ...


class RoutedWork:
    """Answers a surface's requests through the cascade (``router.api.asgi.Work``). ``catalog()`` says which
    models there are at the moment."""

    def __init__(self, surface: Surface, catalog: Callable[[], Catalog], streams: Streams, who: Identities) -> None:
        self._surface, self._catalog, self._streams, self._identities = surface, catalog, streams, who

    async def __call__(self, arrived: Arrival) -> None:
        asked = await self._surface.asked(arrived.content, arrived.request_id, arrived.headers)
        cascade, tier = self._catalog().resolve(asked.body["model"])
        size = len(arrived.content) + asked.before
        chat = await aside(partial(chat_request, arrived, asked, tier, self._identities), size)
        out = asked.through(arrived.sink) if asked.through else arrived.sink
        if chat.streamed:
            with self._streams:
                await cascade.serve(chat, out)
        else:
            await cascade.serve(chat, out)


def chat_request(arrived: Arrival, asked: AskedChat, tier: Tier | None, identity: Identities) -> ChatRequest:
    """The request as the cascade takes it; ``tier`` is what the model's name forces.

    Raises:
        BadRequest: the header ``x-locum-tier`` names no tier.
    """
    body = asked.body
    metadata = body.get("metadata")
    tier = forced_tier(arrived.headers) or tier
    which = asked.conversation
    if which is None:
        named = asked.named or conversation_named(arrived.headers, body)
        which = identified(identity, body, owner=arrived.owner, request_id=arrived.request_id, named=named)
    return ChatRequest(
        request_id=arrived.request_id,
        conversation_id=which.conversation,
        body=body,
        tier=tier,
        owner=arrived.owner or None,
        user=user_named(body),
        task=client_label(metadata.get("task")) if isinstance(metadata, dict) else None,
        native=asked.native,
        size=len(arrived.content) + asked.before,
        which=which,
    )


def identified(
    identity: Identities,
    body: Mapping[str, Any],
    *,
    owner: str,
    request_id: str,
    named: str | None,
    known: str | None = None,
) -> Membership:
    """Which conversation of the owner's a request belongs to: by the client's word, else the one that it is known to
    go on from, else what it says. To be asked once of each request: it is remembered."""
    if named:
        return identity.named(owner, named)
    hint = body.get("prompt_cache_key")
    return identity.of(
        body["messages"],
        owner,
        request_id,
        user=user_named(body) or "",
        hint=hint if isinstance(hint, str) else "",
        known=known,
    )


def forced_tier(headers: Mapping[bytes, bytes]) -> Tier | None:
    """The tier that the client asks for by header.

    Raises:
        BadRequest: it names none.
    """
    value = headers.get(b"x-locum-tier", b"").decode("latin-1").strip().lower()
    if not value:
        return None
    if value not in (Tier.STUDENT, Tier.TEACHER):
        raise BadRequest("the header 'x-locum-tier' must be 'student' or 'teacher'", param="x-locum-tier")
    return Tier(value)


def client_label(value: object) -> str | None:
    """A client's own word for a user or a task, where it is one."""
    return value[:128] if isinstance(value, str) and value else None


Answering = Callable[[Arrival], Awaitable[Reply]]
"""Raises LocumError."""


class PlainWork:
    """Answers with what ``answering`` makes of a request (``router.api.asgi.Work``)."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, arrived: Arrival) -> None:
        try:
            reply = await self._answering(arrived)
            await arrived.sink.whole(reply.status, list(reply.headers), reply.body)
        except UpstreamRefused as refused:
            headers = [(b"x-locum-request-id", arrived.request_id.encode()), *refused.reply_headers]
            await arrived.sink.whole(refused.reply_status, headers, refused.reply_body)
