"""A chat request and the way of its answer, as every surface has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from router.contracts.decision import Tier
from router.wire.ceiling import Dearest
from router.wire.lineage import Membership

IN_OWN_WORDS = "locum_own_words"
"""The field in which a request, an answer or a chunk in chat's form has the same in the dialect that its client and its
backend share: a ``Native``, a JSON text, an event. Who does not ask for it never gets it."""


class Dialect(StrEnum):
    """What a backend speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Native:
    """A request in its client's own words; ``headers`` are those that ask for something. A backend of this dialect is
    asked with them, and answers in them, so that no translation loses anything."""

    dialect: Dialect
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat-completions request, parsed and validated. ``tier`` is what the client forces, if anything;
    ``task`` and ``user`` are the client's own labels, ``owner`` is whose key it came with, None without keys;
    ``native`` is the same request in the client's own words, where those are another dialect's; ``size``: in bytes, as
    it came, with what was said before; ``which``: its conversation, as it was told from others; ``dearest``: what it
    can cost."""

    request_id: str
    conversation_id: str
    body: Mapping[str, Any]
    tier: Tier | None = None
    user: str | None = None
    task: str | None = None
    owner: str | None = None
    native: Native | None = None
    size: int = 0
    which: Membership | None = None
    dearest: Dearest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dearest", Dearest(self.body))

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk at the end of its stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.body.get("logprobs"))

    @property
    def has_assistant_turn(self) -> bool:
        return any(isinstance(m, dict) and m.get("role") == "assistant" for m in self.body["messages"])


Headers = list[tuple[bytes, bytes]]
EVENT_STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
JSON: Headers = [(b"content-type", b"application/json")]


class Sink(Protocol):
    """Where an answer goes. ``started`` once the status has left: from then on nothing can be taken back.
    What a stream sends are whole events."""

    started: bool

    async def start(self, status: int, headers: Headers) -> None: ...

    async def whole(self, status: int, headers: Headers, body: bytes) -> None: ...

    async def send(self, data: bytes) -> None: ...

    async def end(self, data: bytes = b"") -> None: ...
